"""The floor: the score that real images get when they are judged as if they were generated.

A distance between two finite sets of real images is not 0; its plain value is the finite-sample bias, about
c (1/n + 1/m).  So a score means something only beside the score of real images at the same n and m, by the same
extractor and estimator.

    one pool       n + m real images are drawn, the first n play the generated set, the other m the reference
    two pools      n real images are drawn from one split and judged against the whole of another (the reference itself)

Draws are repeated, disjoint as long as the pool lasts (`repeats (n + m) <= N`); otherwise each repeat shuffles the
pool anew.  The floor is the mean over repeats.  Its interval must hold all the noise there is: that of the pool, which
related repeats share, and that of the reference, which all of them share.  So the jackknife groups are dealt to the
*pool* and to the reference once, every draw takes evenly from the groups of the pool, and leaving group k out leaves it
out of every draw at a time:

    value      mean over repeats
    interval   delete-a-group jackknife over pool and reference: where the limit of the floor lies, 95%; 0 if both
               pools hold images of one kind.  The spread of repeats alone would leave the reference out: against 360
               digits it was [-0.20, -0.11] where the truth is 0
    plain      mean of the plain values: the level of the finite-sample bias

`score.excess` sets a score beside its floor, group by group, so that the noise of the reference they share cancels.

Scores without a jackknife (precision, coverage, ...) have no limit to speak of: their floor is the expectation at n and
m, and its interval the range of one more set of real images, mean +- t s sqrt(1 + 1/repeats), the reference held fixed.
Sets of n out of N without replacement vary less by the factor 1 - n/N, which is divided out.
"""

from __future__ import annotations

import math

import numpy as np

from sfumato.core.noise import uniform
from sfumato.metrics.features import Extractor
from sfumato.metrics.jackknife import GROUPS, Estimate, average, deal, student
from sfumato.metrics.metric import Metric, find_metric
from sfumato.metrics.protocol import NO_REFERENCE, Reference
from sfumato.metrics.score import Score, protocol_of, score_of
from sfumato.metrics.statistics import Features


def draws(
    pool: int,
    size: int,
    repeats: int,
    seed: int,
    labels: np.ndarray | None = None,
    member: np.ndarray | None = None,
    turn: int = 0,
) -> list[np.ndarray]:
    """Draw `repeats` sets of `size` rows out of `pool`, disjoint while the pool lasts.

    With labels the sets are balanced: equal numbers of each class (the first classes one more if it does not divide),
    so that a floor beside a conditional model's score has no more noise of classes than that score has.

    Arguments:
        pool: Rows to draw from.
        size: Rows of a set, at most `pool`.
        repeats: Number of sets.
        seed: Seed of the shuffles.
        labels: int (pool,); None draws classes at random.
        member: int (pool,), jackknife groups that every set takes from in turn, so evenly; None draws at random.
        turn: Whose turn it is first.

    Returns:
        int64 arrays (size,), in random order.

    Raises:
        ValueError: If a class has too few rows for one balanced set.
    """
    if labels is not None:
        kinds = np.unique(labels)
        shares = [size // len(kinds) + (i < size % len(kinds)) for i in range(len(kinds))]
        by_kind, turn = [], 0
        for kind, share in zip(kinds, shares):
            rows = np.flatnonzero(labels == kind)
            if share > len(rows):
                raise ValueError(
                    f"A balanced set of {size} needs {share} images of class {kind}, the pool has "
                    f"{len(rows)}. Use a smaller n."
                )
            groups = None if member is None else member[rows]
            by_kind.append(
                [rows[part] for part in draws(len(rows), share, repeats, seed, None, groups, turn)] if share else []
            )
            turn += share  # the next class goes on where this one stopped: sets are even over groups in all
        sets = [np.concatenate([parts[i] for parts in by_kind if parts]) for i in range(repeats)]
        return [part[np.argsort(uniform(range(size), seed=seed, purpose="mix").numpy())] for part in sets]
    whole = pool // size
    found = []
    for i in range(repeats):
        shuffle, place = divmod(i, whole)
        order = np.argsort(uniform(range(pool), seed=seed, purpose="floor", step=shuffle).numpy(), kind="stable")
        if member is not None:
            order = order[_in_turn(member[order], turn)]
        found.append(order[place * size : (place + 1) * size])
    return found


def _in_turn(member: np.ndarray, turn: int) -> np.ndarray:
    """Return an order in which the groups take turns: the first row of each, then the second of each, and so on."""
    by_group = np.argsort(member, kind="stable")
    count = np.bincount(member)
    rank = np.empty(len(member), np.int64)
    rank[by_group] = np.arange(len(member)) - np.repeat(np.cumsum(count) - count, count)
    return np.lexsort(((member - turn) % len(count), rank))


def floor(
    metric: str | Metric,
    real: Features,
    n: int,
    extract: Extractor,
    reference: Reference,
    *,
    m: int | None = None,
    reference_features: Features | None = None,
    labels: np.ndarray | None = None,
    reference_labels: np.ndarray | None = None,
    repeats: int = 8,
    seed: int = 0,
) -> Score:
    """Score real images as if they were generated.

    Arguments:
        metric: A metric, or its name.
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
        A score; its interval holds the limit of the floor, or is the range of one more set (see the module).

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
        raise ValueError(
            f"A floor at n = {n}" + (f", m = {m}" if m else "") + f" needs {size} real images, got "
            f"{len(real)}. Use smaller sizes, or judge one split against another."
        )
    member = deal(len(real), GROUPS, labels) if chosen.groups else None
    estimates = []
    whole = None if reference_features is None else chosen.hold(reference_features, reference_labels, n)
    for rows in draws(len(real), size, repeats, seed, labels, member):
        x, y = real[rows[:n]], real[rows[n:]] if whole is None else whole
        strata = (None if labels is None else labels[rows[:n]], reference_labels)
        groups = (None, None) if member is None else (member[rows[:n]], member[rows[n:]] if m is not None else None)
        estimates.append(chosen.estimate(x, y, strata, groups))
    low = average(estimates) if chosen.groups else _range(estimates, size / len(real))
    m_used = size - n if reference_features is None else len(reference_features)
    protocol = protocol_of(
        chosen,
        extract,
        reference if chosen.against_reference else NO_REFERENCE,
        n,
        "real images",
        {**chosen.options_with((labels, reference_labels)), "m": m_used},
        {
            "floor": "one pool" if reference_features is None else "two pools",
            "repeats": repeats,
            "disjoint": len(real) >= repeats * size,
            "pool": len(real),
            "seed": seed,
        },
    )
    return score_of(chosen, low, protocol, m_used)


def _range(estimates: list[Estimate], share: float) -> Estimate:
    """Return the mean of estimates and where one more would fall, from sets that were each `share` of the pool."""
    values, repeats = np.array([estimate.value for estimate in estimates]), len(estimates)
    related = 1 - share if repeats * share > 1 else 1.0
    own = float(np.mean([estimate.se**2 for estimate in estimates]))  # all there is where a set is the whole pool
    se = math.sqrt(max(float(values.var(ddof=1)) / related, own) if related > 0 else own)
    mean, reach = float(values.mean()), student(0.975, repeats - 1) * se * math.sqrt(1 + 1 / repeats)
    return Estimate(mean, (mean - reach, mean + reach), se, float(np.mean([e.plain for e in estimates])), groups=0)
