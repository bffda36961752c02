"""What can be measured of generated images: distances, class predictions, single classes, memory of the training set.

A distance (`metrics.score.METRICS`) compares two sets of features and becomes a score with a floor.  The others are the
functions in `PANELS`: each takes the evidence and returns what it found, scores or tables and curves and pictures.
Both kinds are asked for by name, `sfumato evaluate RUN --metrics fd kid per-class memorization`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from sfumato.core.find import nearest
from sfumato.core.noise import uniform
from sfumato.data.dataset import Dataset
from sfumato.evaluation.real import cached_features, cached_floor, reference_of
from sfumato.metrics.calibration import draws
from sfumato.metrics.extractors.classifier import ClassifierFeatures
from sfumato.metrics.extractors.inception import InceptionFeatures
from sfumato.metrics.extractors.pixels import pixels
from sfumato.metrics.features import Extractor
from sfumato.metrics.inception_score import inception_score
from sfumato.metrics.jackknife import GROUPS
from sfumato.metrics.memorization import memorization
from sfumato.metrics.neighbours import nearest as neighbours
from sfumato.metrics.rules import shared
from sfumato.metrics.saturation import Saturation, measure_saturation
from sfumato.metrics.score import HINTS, METRICS, SETS, Score, find_metric, measure, measure_logits, with_floor
from sfumato.metrics.statistics import Features

FLOOR_REPEATS = 8
NO_FLOOR = "no floor: too few real training images outside the reference, in all or of one class"
PIXEL_IMAGES = 1000  # of each kind, for distances between pixels; distances between features take all
PANEL, NEIGHBOURS = 8, 3  # samples on the neighbour panel, and training images beside each


@dataclass(frozen=True)
class Evidence:
    """Everything that measuring needs.

    Arguments:
        extract: The extractor.
        made: Arrays of the generated images by view: "features", "logits", "spatial", "pixels".
        labels: int (n,), classes the images were asked for, or None.
        copies: int (n,), the first training image equal to each generated one, or -1.
        real: The reference.
        training: The images the model was trained on.
        pool: More real images, for floors.
        facts: Provenance.
        notes: Flags found so far.
        first_seed: Seed of the first generated image.
        quiet: No progress bar.
    """

    extract: Extractor
    made: dict[str, Features]
    labels: np.ndarray | None
    copies: np.ndarray
    real: Dataset
    training: Dataset
    pool: Dataset
    real_labels: np.ndarray | None
    facts: dict[str, Any]
    notes: tuple[str, ...]
    first_seed: int = 0
    quiet: bool = True

    @property
    def n(self) -> int:
        """Number of generated images."""
        return len(self.made["features"])

    @property
    def prior(self) -> str:
        """Which classes were asked for."""
        return "unconditional" if self.labels is None else "uniform"

    @property
    def pool_labels(self) -> np.ndarray | None:
        """Classes of the pool if floors are to be drawn balanced."""
        labels = self.pool.labels
        return None if self.labels is None or labels is None else labels.numpy()

    @property
    def has_floor(self) -> bool:
        """Whether the pool holds n images, equally many of each class where floors are drawn balanced."""
        labels = self.pool_labels
        if labels is None or not len(self.pool):
            return self.n <= len(self.pool)
        counts = np.unique(labels, return_counts=True)[1]
        shares = self.n // len(counts) + (np.arange(len(counts)) < self.n % len(counts))
        return bool((shares <= counts).all())


@dataclass
class Findings:
    """What a measure found; see `report.results` for the form of tables, curves and pictures."""

    scores: list[Score] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    panels: dict[str, dict[str, Any]] = field(default_factory=dict)


def expand(names: Sequence[str]) -> list[str]:
    """Return the names of single measures: sets are spelt out, repetitions left out.

    Raises:
        ValueError: For an unknown name; the nearest is offered.

    >>> expand(["fd", "pr", "recall"])
    ['fd', 'precision', 'recall']
    """
    found: dict[str, None] = {}
    for name in names:
        for one in SETS.get(name, (name,)):
            if one not in METRICS and one not in PANELS:
                raise ValueError(HINTS.get(one) or nearest("metric", one, [*METRICS, *SETS, *PANELS]))
            found[one] = None
    return list(found)


def views(names: Sequence[str]) -> set[str]:
    """Return which views of the generated images the measures need, besides features."""
    needs = {METRICS[name].view for name in names if name in METRICS} | {
        view for name in names if name in PANELS for view in NEEDS.get(name, ())
    }
    return needs - {"features"}


def view_of(extract: Extractor, view: str) -> tuple[Callable[..., Any], int, Extractor]:
    """Return (what to compute of images, its width, the extractor to name) for a view of an extractor.

    Raises:
        ValueError: If the extractor has no such view.
    """
    if view == "features":
        return extract, extract.dimension, extract
    if view == "spatial" and isinstance(extract, InceptionFeatures):
        spatial = extract.spatial_twin()
        return spatial, spatial.dimension, spatial
    if view == "logits" and isinstance(extract, ClassifierFeatures | InceptionFeatures):
        return extract.logits, extract.classes, extract
    raise ValueError(
        f"Extractor '{extract.name}' has no {view}: sFID needs 'inception', the Inception Score "
        "'inception' or a classifier such as 'fashion-mnist'. Choose another, or leave it out."
    )


def distance(name: str, e: Evidence) -> Score:
    """Return the score of one distance with its floor."""
    metric = find_metric(name)
    compute, width, extract = view_of(e.extract, metric.view)
    real = cached_features(extract, e.real, e.quiet, compute=compute, width=width)
    notes = e.notes if e.has_floor else (*e.notes, NO_FLOOR)
    score = measure(
        name,
        e.made[metric.view],
        real,
        extract,
        reference_of(e.real),
        strata=(e.labels, e.real_labels),
        class_prior=e.prior,
        quantisation="round",
        provenance=e.facts,
        notes=notes,
    )
    if not e.has_floor:
        return score
    pool = cached_features(extract, e.pool, e.quiet, compute=compute, width=width)
    return with_floor(score, cached_floor(
        name, extract, e.pool, pool, e.n, e.real, real, labels=e.pool_labels, reference_labels=e.real_labels,
        repeats=FLOOR_REPEATS,
    ))  # fmt: skip


def class_score(e: Evidence) -> Findings:
    """Score the class predictions alone: the Inception Score; its floor is that of real images, which is a ceiling."""
    score = measure_logits(e.made["logits"], e.extract, class_prior=e.prior, provenance=e.facts)
    compute, width, _ = view_of(e.extract, "logits")
    if e.has_floor:
        pool = cached_features(e.extract, e.pool, e.quiet, compute=compute, width=width, view="logits")
        found = [inception_score(pool[rows]).estimate for rows in draws(len(pool), e.n, 2, 0, e.pool_labels)]
        mean = float(np.mean([f.value for f in found]))
        reach = max(f.interval[1] - f.value for f in found)
        real = replace(
            score,
            value=mean,
            plain=mean,
            se=found[0].se,
            interval=(mean - reach, mean + reach),
            flags=(),
            protocol=replace(score.protocol, class_prior="real images", provenance={}),
        )
        score = with_floor(score, real)
    return Findings(scores=[score])


def saturation(e: Evidence) -> Findings:
    """Score the share of channel values at 0 or 255; its floor, that of the reference, is where it should be."""
    extract = Saturation(e.training.shape)
    score = measure_saturation(
        e.made["saturation"],
        cached_features(extract, e.real, e.quiet),
        extract,
        reference_of(e.real),
        strata=(e.labels, e.real_labels),
        class_prior=e.prior,
        provenance=e.facts,
        notes=e.notes,
    )
    return Findings(scores=[score])


def check_classes(labels: np.ndarray | None, real: Dataset, training: Dataset) -> None:
    """Refuse scores per class where there are no classes, or too few images of one."""
    if labels is None or real.labels is None:
        raise ValueError(
            "Scores per class need a model that is asked for classes and a labelled reference; this run "
            "or this reference has none. Leave out --metrics per-class."
        )
    made, there = (np.bincount(side, minlength=len(real.classes)) for side in (labels, real.labels.numpy()))
    few = int(np.minimum(made, there).argmin())
    if min(made[few], there[few]) < 2 * GROUPS:
        raise ValueError(
            f"Scores per class need at least {2 * GROUPS} images of each class; class {real.classes[few]} "
            f"has {made[few]} generated and {there[few]} real ones. Make more images, or take a larger "
            "reference."
        )


def per_class(e: Evidence) -> Findings:
    """Score each class by KID: counts are below the number of features, where a Frechet distance is all bias."""
    assert e.labels is not None and e.real.labels is not None  # `check_classes`
    real = cached_features(e.extract, e.real, e.quiet)
    pool = cached_features(e.extract, e.pool, e.quiet)
    rows, bars = [], {}
    for k, name in enumerate(e.real.classes):
        mine = np.flatnonzero(e.labels == k)
        theirs, more = (torch.nonzero(torch.as_tensor(d.labels == k))[:, 0] for d in (e.real, e.pool))
        part = reference_of(e.real.subset(theirs.tolist(), note=f"class {name}"))
        score = measure("kid", e.made["features"][mine], real[theirs.numpy()], e.extract, part,
                        class_prior=f"class {name}", provenance=e.facts, notes=e.notes)  # fmt: skip
        row = {"class": name, "score": score.name, "value": _cell(score), "n": score.n, "m": score.m}
        if len(more) >= len(mine):
            chosen = more.numpy()[np.sort(draws(len(more), len(mine), 1, 0)[0])]
            row["real images"] = _cell(measure("kid", pool[chosen], real[theirs.numpy()], e.extract, part))
        rows.append({**row, "protocol": score.protocol.protocol_id})
        bars[name] = _cell(score)
    title = rows[0]["score"] if rows else "KID"
    return Findings(tables={"classes": rows}, curves={"classes": {"scores": {"generated": bars}, "score": title}})


def _cell(score: Score) -> dict[str, Any]:
    return {"value": score.value, "interval": list(score.interval)}


def check_held_out(labels: np.ndarray | None, real: Dataset, training: Dataset) -> None:
    """Refuse a reference of training images where held-out ones are needed."""
    if seen := shared(real.image_hashes, training.image_hashes):
        raise ValueError(
            f"Memorization is judged beside held-out images, and {seen} of the {len(real)} of the split "
            f"{real.split!r} were trained on. Ask for it with --split test."
        )


def memory(e: Evidence) -> Findings:
    """Compare generated and held-out images by their nearest training images, between features and between pixels."""
    train = cached_features(e.extract, e.training, e.quiet)
    held = cached_features(e.extract, e.real, e.quiet)
    found = {f"{e.extract.name} features": memorization(e.made["features"], train, held)}
    flat = pixels(e.training.shape)
    some = _some(len(e.real))
    near = memorization(
        e.made["pixels"][:PIXEL_IMAGES].astype(np.float32) / 127.5 - 1,
        flat(e.training.images).numpy(),
        flat(e.real.images[some]).numpy(),
    )
    found["pixels"] = near
    rows: list[dict[str, Any]] = [
        {
            "measure": "exact copies of training images",
            "generated": int((e.copies >= 0).sum()),
            "held out": int(np.isin(_void(e.real.image_hashes), _void(e.training.image_hashes)).sum()),
            "n": e.n,
        }
    ]
    for space, m in found.items():
        rows += [
            {"measure": f"nearest distance, median ({space})", "generated": float(np.median(m.distance)),
             "held out": float(np.median(m.held_out_distance)), "n": len(m.distance)},
            {"measure": f"nearer than all but 1% of held-out images ({space})", "generated":
             {"value": m.closer.value, "interval": list(m.closer.interval)}, "held out": 0.01, "n": len(m.distance)},
            {"measure": f"AuthPct ({space})", "generated":
             {"value": m.authentic.value, "interval": list(m.authentic.interval)}, "held out":
             {"value": m.authentic_held_out.value, "interval": list(m.authentic_held_out.interval)},
             "n": len(m.distance)},
        ]  # fmt: skip
    first = next(iter(found.values()))
    groups = {"generated to train": first.distance, f"{e.real.split} to train": first.held_out_distance}
    picked = near.nearest_first(PANEL)
    samples = torch.from_numpy(np.array(e.made["pixels"][picked])).reshape(-1, *e.training.shape)
    squared, index = neighbours(flat(samples).numpy(), flat(e.training.images).numpy(), NEIGHBOURS)
    shown = {
        "samples": samples,
        "nearest": e.training.images[torch.from_numpy(index)],
        "distances": torch.from_numpy(np.sqrt(squared)),
        "indices": torch.from_numpy(index),
        "seeds": [e.first_seed + int(i) for i in picked],
        "curated": True,
        "caption": f"The {len(picked)} of {len(near.distance)} samples that lie nearest to the training set.",
    }
    curve = {
        "groups": {
            name: [round(float(v), 5) for v in values[_some(len(values), 2000)]] for name, values in groups.items()
        },
        "space": next(iter(found)),
    }
    return Findings(tables={"memorization": rows}, curves={"distances": curve}, panels={"neighbours": shown})


def _some(count: int, most: int = PIXEL_IMAGES) -> np.ndarray:
    """Return at most so many positions, drawn by addressed noise, in order."""
    return np.sort(np.argsort(uniform(range(count), purpose="some images").numpy(), kind="stable")[:most])


def _void(hashes: np.ndarray) -> np.ndarray:
    """Return rows of hashes as single values that numpy can compare."""
    return np.ascontiguousarray(hashes).view(f"V{hashes.shape[1]}")[:, 0]


PANELS: dict[str, Callable[[Evidence], Findings]] = {
    "is": class_score,
    "saturation": saturation,
    "per-class": per_class,
    "memorization": memory,
}
"""The measures that are no distance, or more than one, by the name a command line takes."""

TABLES = ("per-class", "memorization")
"""Panels that are tables and pictures rather than a score, so nothing to draw along a sweep."""

CHECKS: dict[str, Callable[[np.ndarray | None, Dataset, Dataset], None]] = {
    "per-class": check_classes,
    "memorization": check_held_out,
}
"""What a panel refuses, (labels asked for, reference, training images), before any image is made."""

NEEDS = {"is": ("logits",), "saturation": ("saturation",), "memorization": ("pixels",)}
"""Views of the generated images that a panel needs besides features."""
