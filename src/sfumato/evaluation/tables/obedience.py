"""What was asked for against what is measured on the samples: classes, attributes, and the image that a model is told.

Samples of a model that is told more than a class are made under the conditions of real images. An attribute is measured
by its own rule; a class, or a column of a table, by a ridge regression from features, fitted to training images (of
a class to 1 for its images and 0 for others; the largest is the class). A number is reported as the correlation r of
asked and measured with Fisher's interval, tanh(artanh r +- 1.96 / sqrt(n - 3)); an attribute of two values, or the
class, as the share that is right with Wilson's. Where more samples are asked for than there are real images, several
are made under one condition and are not independent: n in these intervals is the number of independent samples that
would vary as much, n over Kish's design effect (`effective`). The same of real images beside it is what a perfect
model would reach. An image that is told is compared with what the same operation makes of the sample, as PSNR.

References:
    Fisher. On the "Probable Error" of a Coefficient of Correlation Deduced from a Small Sample. Metron 1, 1921.
    Wilson. Probable Inference, the Law of Succession, and Statistical Inference. 1927.
    Kish. Survey Sampling. 1965, section 5.4.
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
from sfumato.metrics.fidelity import psnr
from sfumato.metrics.prdc import NORMAL, share
from sfumato.runs.conditions import lending

MOST = 10_000  # training images that a regression is fitted to
RIDGE = 0.01  # penalty of the regression, as a share of the features' variance


def obedience() -> Table:
    """Asked against measured classes and attributes of samples and of real images; PSNR of the image that is told."""
    return Table(_measure, _check, pixels=True)


def effective(influence: np.ndarray, conditions: np.ndarray) -> float:
    """Return how many independent samples would vary as much as samples of which several share a condition.

    Arguments:
        influence: What each sample adds to an estimate, (n,), of mean 0 (its influence function).
        conditions: Which condition each was made under, (n,).

    Returns:
        n if every condition is met once, and between the number of conditions and n otherwise; that number itself if
        no sample adds anything.
    """
    n, sums = len(influence), np.bincount(np.unique(conditions, return_inverse=True)[1], influence)
    alone, together = np.square(influence).sum() * n / max(n - 1, 1), np.square(sums).sum()
    together *= len(sums) / max(len(sums) - 1, 1)
    return float(len(sums) if alone <= 1e-12 else np.clip(n * alone / max(together, 1e-300), len(sums), n))


def correlation(asked: np.ndarray, measured: np.ndarray, conditions: np.ndarray) -> dict[str, Any] | None:
    """Return Pearson's correlation of two rows of numbers, with Fisher's 95% interval; None where one is constant."""
    if len(asked) < 2 or not (np.ptp(asked) and np.ptp(measured)):
        return None
    r = float(np.clip(np.corrcoef(asked, measured)[0, 1], -1, 1))
    if abs(r) > 1 - 1e-9:
        return {"value": r, "interval": [r, r]}
    x, y = ((row - row.mean()) / row.std() for row in (asked, measured))
    n = effective(x * y - r * (x * x + y * y) / 2, conditions)
    half = NORMAL / math.sqrt(n - 3) if n > 3 else math.inf
    return {"value": r, "interval": [math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)]}


def accuracy(asked: np.ndarray, measured: np.ndarray, conditions: np.ndarray) -> dict[str, Any] | None:
    """Return the share of measured numbers on the side of 1/2 that was asked for, with Wilson's 95% interval."""
    return right((measured > 0.5) == (asked > 0.5), conditions)


def right(hits: np.ndarray, conditions: np.ndarray) -> dict[str, Any] | None:
    """Return the share that is right, with Wilson's 95% interval; None if nothing was asked."""
    if not len(hits):
        return None
    p = float(np.mean(hits))
    n = effective(hits - p, conditions)
    return cell(share(p * n, n))


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
    lent, own_each = asked_of.numpy(), np.arange(len(real))
    label = part_of(made.told, "label")
    rows = [] if label is None or real.labels is None else [_classes(judge, made, label.numpy(), lent)]
    for i, name in enumerate(real.attributes):
        assert real.vector is not None
        column = real.vector[:, i].double().numpy()
        score, what = (accuracy, "accuracy") if {*np.unique(column)} <= {0.0, 1.0} else (correlation, "correlation")
        found, own, by = _measured(judge, made, images, name, i)
        asked = column[lent]
        seen, known = ~np.isnan(asked) & ~np.isnan(found), ~np.isnan(column) & ~np.isnan(own)
        rows.append(
            {
                "attribute": name,
                "measured by": by,
                "score": what,
                "samples": score(asked[seen], found[seen], lent[seen]),
                "real images": score(column[known], own[known], own_each[known]),
                "n": int(seen.sum()),
                "conditions": len(np.unique(lent[seen])),
            }
        )
    if real.beside is not None and not real.condition.startswith("pairs"):
        told, again = to_float(real.beside[asked_of]), to_float(twin(images, real.condition))
        each = psnr(again, told)
        mean, n = float(each.mean()), effective(each - each.mean(), lent)
        half = NORMAL * float(each.std(ddof=1)) / math.sqrt(n)
        nearness = {"value": mean, "interval": [mean - half, mean + half]}
        rows.append({"attribute": real.condition, "measured by": "its rule", "score": "PSNR (dB)", "samples": nearness})
    return Findings(tables={"obedience": rows})


def _measured(
    judge: Judge, made: Generated, images: torch.Tensor, name: str, column: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return an attribute as measured on the samples and on the real images, and how it was measured."""
    real = cast(Dataset, judge.real)
    assert real.vector is not None
    if name in MEASURES:
        own = MEASURES[name](real.images)
        if torch.equal(own.float().nan_to_num(), real.vector[:, column].nan_to_num()):  # else a column of that name
            return MEASURES[name](images).numpy(), own.numpy(), "its rule"
    training = _training(judge)
    assert training.vector is not None
    return _regressed(judge, made, training, training.vector[:, column].double().numpy())


def _training(judge: Judge) -> Dataset:
    """Return the training images that a regression is fitted to."""
    training = cast(Dataset, judge.training)
    return training if len(training) <= MOST else training.take(MOST, seed=0)


def _classes(judge: Judge, made: Generated, label: np.ndarray, lent: np.ndarray) -> dict[str, Any]:
    """Return the row of the classes: as asked for, and as measured on the samples and on the real images."""
    real, training = cast(Dataset, judge.real), _training(judge)
    assert real.labels is not None and training.labels is not None
    found, own, by = _regressed(judge, made, training, np.eye(len(real.classes))[training.labels.numpy()])
    asked = label >= 0
    told_more = real.vector is not None or real.beside is not None  # only then do samples share what is told
    conditions = lent if told_more else np.arange(len(label))
    return {
        "attribute": "class",
        "measured by": by,
        "score": "accuracy",
        "samples": right(found.argmax(1)[asked] == label[asked], conditions[asked]),
        "real images": right(own.argmax(1) == real.labels.numpy(), np.arange(len(real))),
        "n": int(asked.sum()),
        "conditions": len(np.unique(conditions[asked])),
    }


def _regressed(judge: Judge, made: Generated, training: Dataset, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Return numbers as read from the features of samples and real images, and how; y are those of training images."""
    known = ~np.isnan(y.reshape(len(y), -1)).any(1)
    x, y = cached_features(judge.extract, training, judge.quiet)[known].astype(np.float64), y[known]
    mean, penalty = x.mean(0), RIDGE * len(x) * float(x.var(0).mean()) + 1e-12
    right_side = (x - mean).T @ (y - y.mean(0))
    weights = np.linalg.solve((x - mean).T @ (x - mean) + penalty * np.eye(x.shape[1]), right_side)
    samples, others = made.rows["features"], judge.features(judge.extract)
    found, own = ((np.asarray(rows) - mean) @ weights + y.mean(0) for rows in (samples, others))
    return found, own, f"ridge regression from {judge.extract.name} features"
