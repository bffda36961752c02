"""Scores of single classes, by KID: counts are below the number of features, where a Frechet distance is all bias.

Beside each stands the spread of the class, generated and real (`metrics.class_spread`): a class that varies less is
easier to score well on.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from sfumato.evaluation.findings import Findings, Table, cell
from sfumato.evaluation.judge import Generated, Judge
from sfumato.evaluation.real import cached_features, reference_of
from sfumato.metrics.calibration import draws
from sfumato.metrics.class_spread import class_spread
from sfumato.metrics.features import Extractor
from sfumato.metrics.jackknife import GROUPS
from sfumato.metrics.metric import find_metric
from sfumato.metrics.statistics import Features


def per_class() -> Table:
    """KID of each class against the real images of that class, that of other real images, and how much each varies."""
    return Table(_measure, _check)


def _check(judge: Judge, labels: np.ndarray | None) -> None:
    """Refuse scores per class where there are no classes, or too few images of one."""
    real = judge.real
    if labels is None or real is None or real.labels is None:
        raise ValueError(
            "Scores per class need a model that is asked for classes and a labelled reference; this run "
            "or this reference has none. Leave out --metrics per-class."
        )
    made, there = (np.bincount(classes, minlength=len(real.classes)) for classes in (labels, real.labels.numpy()))
    few = int(np.minimum(made, there).argmin())
    if min(made[few], there[few]) < 2 * GROUPS:
        raise ValueError(
            f"Scores per class need at least {2 * GROUPS} images of each class; class {real.classes[few]} "
            f"has {made[few]} generated and {there[few]} real ones. Make more images, or take a larger "
            "reference."
        )


def _measure(judge: Judge, made: Generated) -> Findings:
    real = judge.real
    assert made.labels is not None and real is not None and real.labels is not None  # `_check`
    pool, metric = judge.drawn(made.n), find_metric("kid")
    rows, bars = [], {}
    for k, name in enumerate(real.classes):
        mine = np.flatnonzero(made.labels == k)
        theirs, more = (torch.nonzero(torch.as_tensor(data.labels == k))[:, 0] for data in (real, pool))
        part = real.subset(theirs.tolist(), note=f"class {name}")
        own = replace(
            judge, reference=reference_of(part), features=partial(_rows, judge, theirs.numpy()), strata=None, pool=None
        )
        features = {"features": made.rows["features"][mine]}
        score = own.score(metric, replace(made, rows=features, labels=None, prior=f"class {name}"))
        row = {"class": name, "score": score.name, "value": cell(score), "n": score.n, "m": score.m}
        if len(more) >= len(mine):
            chosen = more.numpy()[np.sort(draws(len(more), len(mine), 1, 0)[0])]
            others = Generated({"features": cached_features(judge.extract, pool, judge.quiet)[chosen]})
            row["real images"] = cell(own.score(metric, others))
        row["spread"] = cell(class_spread(features["features"]))
        row["spread of real images"] = cell(class_spread(own.features(judge.extract)))
        rows.append({**row, "protocol": score.protocol.protocol_id})
        bars[name] = cell(score)
    title = rows[0]["score"] if rows else "KID"
    return Findings(tables={"classes": rows}, curves={"classes": {"scores": {"generated": bars}, "score": title}})


def _rows(judge: Judge, rows: np.ndarray, extract: Extractor) -> Features:
    return judge.features(extract)[rows]
