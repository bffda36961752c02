"""The floor: the score that real images get when they are judged as if they were generated.

A distance between two finite sets of real images is not 0; its plain value is the finite-sample bias, about
c (1/n + 1/m).  So a score means something only beside the score of real images at the same n and m, by the same
extractor and estimator.  A model whose score lies inside the floor's range cannot be told from real images by this
metric at this size.

    one pool       n + m real images are drawn, the first n play the generated set, the other m the reference
    two pools      n real images are drawn from one split and judged against the whole of another (the reference itself)

Draws are repeated.  They are disjoint as long as the pool lasts (`repeats (n + m) <= N`); otherwise each repeat
shuffles the pool anew, and the repeats are then related, so the range is a little too narrow.

    value      mean over repeats
    interval   mean +- t s sqrt(1 + 1/repeats): where one more set of real images would fall, 95%
    plain      mean of the plain values: the level of the finite-sample bias
"""

from __future__ import annotations

import math

import numpy as np

from sfumato.core.noise import uniform
from sfumato.metrics.features import Extractor
from sfumato.metrics.jackknife import student
from sfumato.metrics.protocol import EvalProtocol, Reference
from sfumato.metrics.score import Score, find_metric, name_of, options_of
from sfumato.metrics.statistics import Features


def draws(pool: int, size: int, repeats: int, seed: int, labels: np.ndarray | None = None) -> list[np.ndarray]:
    """Draw `repeats` sets of `size` rows out of `pool`, disjoint while the pool lasts.

    With labels the sets are balanced: equal numbers of each class (the first classes one more if it does not divide),
    so that a floor beside a conditional model's score has no more noise of classes than that score has.

    Arguments:
        pool: Rows to draw from.
        size: Rows of a set, at most `pool`.
        repeats: Number of sets.
        seed: Seed of the shuffles.
        labels: int (pool,); None draws classes at random.

    Returns:
        int64 arrays (size,), in random order.

    Raises:
        ValueError: If a class has too few rows for one balanced set.
    """
    if labels is not None:
        kinds = np.unique(labels)
        shares = [size // len(kinds) + (i < size % len(kinds)) for i in range(len(kinds))]
        by_kind = []
        for kind, share in zip(kinds, shares):
            rows = np.flatnonzero(labels == kind)
            if share > len(rows):
                raise ValueError(f"A balanced set of {size} needs {share} images of class {kind}, the pool has "
                                 f"{len(rows)}. Use a smaller n.")
            by_kind.append([rows[part] for part in draws(len(rows), share, repeats, seed)] if share else [])
        sets = [np.concatenate([parts[i] for parts in by_kind if parts]) for i in range(repeats)]
        return [part[np.argsort(uniform(range(size), seed=seed, purpose="mix").numpy())] for part in sets]
    whole = pool // size
    found = []
    for i in range(repeats):
        shuffle, place = divmod(i, whole)
        order = np.argsort(uniform(range(pool), seed=seed, purpose="floor", step=shuffle).numpy(), kind="stable")
        found.append(order[place * size:(place + 1) * size])
    return found


def floor(metric: str, real: Features, n: int, extract: Extractor, reference: Reference, *,
          m: int | None = None, reference_features: Features | None = None, labels: np.ndarray | None = None,
          reference_labels: np.ndarray | None = None, repeats: int = 8, seed: int = 0) -> Score:
    """Score real images as if they were generated.

    Arguments:
        metric: A name of `score.METRICS`.
        real: Features (N, d) of real images.
        n: Images that play the generated set.
        extract: The extractor that made the features.
        reference: Which real images the scores beside this floor are taken against.
        m: Images that play the reference, drawn from `real` (one pool); n + m <= N.
        reference_features: Features (m, d) of the reference itself (two pools); n <= N.
        labels: int (N,), classes of the real images, if the score beside this floor is of balanced classes.
        reference_labels: int (m,), classes of the reference, if the number of each was chosen.
        repeats: Number of draws, >= 2.
        seed: Seed of the draws.

    Returns:
        A score whose interval is the range of one more set of real images.

    Raises:
        ValueError: If the real images are too few for n and m, repeats < 2, or neither or both of `m` and
            `reference_features` are given.
    """
    chosen = find_metric(metric)
    if (m is None) == (reference_features is None):
        raise ValueError("A floor needs either m, to draw the reference from the same images, or reference_features.")
    if m is not None and (labels is not None or reference_labels is not None):
        raise ValueError("Balanced draws are for a floor against the reference itself: give reference_features, not m.")
    if repeats < 2:
        raise ValueError(f"The range of a floor needs at least 2 repeats, got {repeats}.")
    size = n + (m or 0)
    if size > len(real):
        raise ValueError(f"A floor at n = {n}" + (f", m = {m}" if m else "") + f" needs {size} real images, got "
                         f"{len(real)}. Use smaller sizes, or judge one split against another.")
    estimates = []
    for rows in draws(len(real), size, repeats, seed, labels):
        against = real[rows[n:]] if reference_features is None else reference_features
        estimates.append(chosen.estimate(real[rows[:n]], against, (None if labels is None else labels[rows[:n]],
                                                                   reference_labels)))
    values = np.array([estimate.value for estimate in estimates])
    spread, mean = float(values.std(ddof=1)), float(values.mean())
    reach = student(0.975, repeats - 1) * spread * math.sqrt(1 + 1 / repeats)
    whole = len(real) >= repeats * size
    m_used = len(reference_features) if reference_features is not None else size - n
    protocol = EvalProtocol(
        metric=chosen.name, version=chosen.version, extractor=extract.name, weights_hash=extract.weights_hash,
        features=extract.describe(), reference=reference, n=n, class_prior="real images", estimator=chosen.estimator,
        options={**options_of(chosen, (labels, reference_labels)), "m": m_used},
        provenance={"floor": "one pool" if reference_features is None else "two pools", "repeats": repeats,
                    "disjoint": whole, "pool": len(real), "seed": seed})
    return Score(name_of(chosen.name, extract.name), mean, (mean - reach, mean + reach), spread,
                 float(np.mean([estimate.plain for estimate in estimates])), n, m_used, protocol)
