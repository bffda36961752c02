"""What was asked for against what is measured on the samples: classes, attributes, and the image that a model is told.

Samples of a model that is told more than a class are made under the conditions of real images. An attribute is measured
by its own rule; a class, or a column of a table, by a ridge regression from features, fitted to the training images (of
a class to 1 for its images and 0 for others; the largest is the class). A number is reported as the
correlation r of asked and measured with Fisher's interval, tanh(artanh r +- 1.96 / sqrt(n - 3)); an attribute of two
values, or the class, as the share that is right with Wilson's. The same of real images beside it is what a perfect
model would reach. An image that is told is compared with what the same operation makes of the sample, as PSNR.

References:
    Fisher. On the "Probable Error" of a Coefficient of Correlation Deduced from a Small Sample. Metron 1, 1921.
    Wilson. Probable Inference, the Law of Succession, and Statistical Inference. 1927.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch

from sfumato.core.condition import part_of
from sfumato.core.images import to_float
from sfumato.data.dataset import Dataset
from sfumato.data.told.attributes import MEASURES
from sfumato.data.told.beside import twin
from sfumato.evaluation.findings import Findings, Table, cell
from sfumato.evaluation.judge import Generated, Judge
from sfumato.evaluation.real import cached_features
from sfumato.metrics.fidelity import psnr, with_interval
from sfumato.metrics.prdc import NORMAL, share
from sfumato.runs.conditions import lending

RIDGE = 0.01  # penalty of the regression, as a share of the features' variance


def obedience() -> Table:
    """Asked against measured classes and attributes of samples and of real images; PSNR of the image that is told."""
    return Table(_measure, _check, pixels=True)


def correlation(asked: np.ndarray, measured: np.ndarray) -> dict[str, Any]:
    """Return Pearson's correlation of two rows of numbers, with Fisher's 95% interval."""
    r = float(np.clip(np.corrcoef(asked, measured)[0, 1], -1, 1))
    if abs(r) > 1 - 1e-9 or len(asked) < 4:
        return {"value": r, "interval": [r, r]}
    half = NORMAL / math.sqrt(len(asked) - 3)
    return {"value": r, "interval": [math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)]}


def accuracy(asked: np.ndarray, measured: np.ndarray) -> dict[str, Any]:
    """Return the share of measured numbers on the side of 1/2 that was asked for, with Wilson's 95% interval."""
    return right((measured > 0.5) == (asked > 0.5))


def right(hits: np.ndarray) -> dict[str, Any]:
    """Return the share that is right, with Wilson's 95% interval."""
    return cell(share(float(hits.sum()), len(hits)))


def _check(judge: Judge, labels: np.ndarray | None) -> None:
    """Refuse a model that is told nothing."""
    real = judge.real
    if real is None or (labels is None and real.vector is None and real.beside is None):
        raise ValueError(
            "Obedience compares classes, attributes, or an image that is told, with those of the samples; this model "
            "is told none. Train with labels, data.attributes or data.condition."
        )


def _measure(judge: Judge, made: Generated) -> Findings:
    real = cast(Dataset, judge.real)
    images = torch.from_numpy(np.array(made.rows["pixels"])).reshape(-1, *real.shape)
    asked_of = lending(len(real), range(made.first_seed, made.first_seed + made.n))
    label = part_of(made.told, "label")
    rows = [] if label is None or real.labels is None else [_classes(judge, made, label.numpy())]
    for i, name in enumerate(real.attributes):
        assert real.vector is not None
        column = real.vector[:, i].double().numpy()
        score, what = (accuracy, "accuracy") if {*np.unique(column)} <= {0.0, 1.0} else (correlation, "correlation")
        found, own, by = _measured(judge, made, images, name, i)
        asked = column[asked_of.numpy()]
        seen, known = ~np.isnan(asked) & ~np.isnan(found), ~np.isnan(column) & ~np.isnan(own)
        rows.append(
            {
                "attribute": name,
                "measured by": by,
                "score": what,
                "samples": score(asked[seen], found[seen]),
                "real images": score(column[known], own[known]),
                "n": int(seen.sum()),
            }
        )
    if real.beside is not None and not real.condition.startswith("pairs"):
        told, again = to_float(real.beside[asked_of]), to_float(twin(images, real.condition))
        value, *interval = with_interval(psnr(again, told))
        nearness = {"value": value, "interval": interval}
        rows.append({"attribute": real.condition, "measured by": "its rule", "score": "PSNR (dB)", "samples": nearness})
    return Findings(tables={"obedience": rows})


def _measured(
    judge: Judge, made: Generated, images: torch.Tensor, name: str, column: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return an attribute as measured on the samples and on the real images, and how it was measured."""
    real, training = cast(Dataset, judge.real), cast(Dataset, judge.training)
    if name in MEASURES:
        return MEASURES[name](images).numpy(), MEASURES[name](real.images).numpy(), "its rule"
    assert training.vector is not None
    return _regressed(judge, made, training.vector[:, column].double().numpy())


def _classes(judge: Judge, made: Generated, label: np.ndarray) -> dict[str, Any]:
    """Return the row of the classes: as asked for, and as measured on the samples and on the real images."""
    real, training = cast(Dataset, judge.real), cast(Dataset, judge.training)
    assert real.labels is not None and training.labels is not None
    found, own, by = _regressed(judge, made, np.eye(len(real.classes))[training.labels.numpy()])
    asked = label >= 0
    return {
        "attribute": "class",
        "measured by": by,
        "score": "accuracy",
        "samples": right(found.argmax(1)[asked] == label[asked]),
        "real images": right(own.argmax(1) == real.labels.numpy()),
        "n": int(asked.sum()),
    }


def _regressed(judge: Judge, made: Generated, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Return numbers as read from the features of samples and real images, and how; y are those of training images."""
    training = cast(Dataset, judge.training)
    known = ~np.isnan(y.reshape(len(y), -1)).any(1)
    x, y = cached_features(judge.extract, training, judge.quiet)[known].astype(np.float64), y[known]
    mean, penalty = x.mean(0), RIDGE * len(x) * float(x.var(0).mean()) + 1e-12
    right_side = (x - mean).T @ (y - y.mean(0))
    weights = np.linalg.solve((x - mean).T @ (x - mean) + penalty * np.eye(x.shape[1]), right_side)
    samples, others = made.rows["features"], judge.features(judge.extract)
    found, own = ((np.asarray(rows) - mean) @ weights + y.mean(0) for rows in (samples, others))
    return found, own, f"ridge regression from {judge.extract.name} features"
