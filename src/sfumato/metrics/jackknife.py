"""Delete-a-group jackknife: how far a score may be from its limit, and how far its bias put it.

A distance estimated from n and m images has the expectation  theta + c (1/n + 1/m) + ...  .  Leaving out the same
share 1/G of both samples turns the bias into  G/(G-1)  times itself, so

    value    = G theta_hat - (G - 1) mean_k theta_(-k)                              bias of order 1/n gone
    variance = (G - 1)/G sum_k (theta_(-k) - mean_k theta_(-k))^2                   Tukey's estimate
    interval = value +- t_{G-1} sqrt(variance)                                      Student's quantile, 95% by default

Two models judged against one reference share the reference's noise, and with equal seeds much of their own.  Leaving
the same group out of both and taking the jackknife of the *difference* keeps what they share out of the interval.

The naive bootstrap is not offered: drawing with replacement from n images adds the bias a second time.

The group of an image depends on its position only, never on batch size or order of arrival: each run of G consecutive
positions is dealt to the G groups in an order drawn from addressed noise, so groups are even in size and images that
come sorted by class or that cycle through classes are spread over all groups.

Strata.  Where the number of images of each class was *chosen* (equal numbers asked of a conditional model; a test set
balanced by its makers), it is not random, and groups that differ in their classes would count a noise that is not
there: for 2,000 balanced Fashion-MNIST images that put -0.07 into a value of 0 and doubled its interval.  Given the
labels, `deal` gives each group its share of each class.  Where a class does not divide evenly into the groups (36
images, 20 groups) the images that stay are weighted so that each class keeps its share of the whole (`weights`).

Coverage.  Where the two distributions differ, nominal 95% intervals covered 92 to 98% (docs/results/metrics.md).  Where
they are equal, a distance is a quadratic form at its minimum: its linear term vanishes, the jackknife counts the
quadratic one up to twice, and the interval is too wide (97 to 100%), never too narrow.

References:
    Tukey. Bias and Confidence in Not-quite Large Samples. 1958. https://doi.org/10.1214/aoms/1177706647
    Busing, Meijer, Van Der Leeden. Delete-m Jackknife for Unequal m. 1999. https://doi.org/10.1023/A:1008800423698
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from sfumato.core.noise import uniform

GROUPS = 20
Strata = tuple[np.ndarray | None, np.ndarray | None]
"""Labels of the generated and of the reference images, where the number of each class was chosen."""
Members = tuple[np.ndarray | None, np.ndarray | None]
"""Jackknife group of each generated and of each reference image, where they were dealt elsewhere."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number estimated from samples.

    Arguments:
        value: The estimate to quote.
        interval: Where its limit lies with 95% confidence, as far as sampling noise goes.
        se: Standard error of `value`.
        plain: The textbook value without bias correction, comparable with published ones.
        groups: Groups of the jackknife; 0 where another method gave the interval.
        left_out: The estimates without one group; those of two models pair up (`score.compare`).
    """

    value: float
    interval: tuple[float, float]
    se: float
    plain: float
    groups: int = GROUPS
    left_out: tuple[float, ...] = ()


def group_of(start: int, stop: int, groups: int = GROUPS) -> np.ndarray:
    """Return the jackknife group of each position in [start, stop).

    Arguments:
        start: First position, >= 0.
        stop: One past the last position.
        groups: Number of groups G.

    Returns:
        int64 (stop - start,), values in [0, G); every aligned run of G positions holds each group once.

    >>> sorted(group_of(40, 60, 20).tolist()) == list(range(20))
    True
    """
    first, last = start // groups, -(-stop // groups)
    keys = uniform(range(first * groups, last * groups), purpose="jackknife group").numpy()
    ranks = keys.reshape(-1, groups).argsort(axis=1).argsort(axis=1).reshape(-1)
    return ranks[start - first * groups : stop - first * groups]


def deal(n: int, groups: int = GROUPS, labels: np.ndarray | None = None) -> np.ndarray:
    """Return the jackknife group of each of n images.

    Arguments:
        n: Number of images.
        groups: Number of groups G.
        labels: int (n,), the class of each image where the number of each class was chosen; None where it is random.

    Returns:
        int64 (n,), values in [0, G); with labels, each class is spread evenly over the groups.

    Raises:
        ValueError: If there is not one label for each image.
    """
    member = group_of(0, n, groups)
    if labels is None:
        return member
    if len(labels) != n:
        raise ValueError(f"Strata need one label for each of the {n} images, got {len(labels)}.")
    dealt = np.empty(n, np.int64)
    dealt[np.argsort(labels, kind="stable")] = member
    return dealt


def weights(member: np.ndarray, labels: np.ndarray | None, k: int) -> np.ndarray:
    """Return the weight of each image when group k is left out, so that each class keeps its share of the whole.

    Arguments:
        member: int64 (n,), the group of each image.
        labels: int (n,), classes whose counts were chosen; None weights all that stay alike.
        k: The group that is left out.

    Returns:
        float64 (n,): 0 in group k, elsewhere 1 up to how unevenly the group took from the classes; the sum is the
        number of images that stay.

    Raises:
        ValueError: If the group holds all images of a class.

    >>> weights(np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1]), 0).tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    stay = (member != k).astype(np.float64)
    if labels is None:
        return stay
    kinds, kind = np.unique(labels, return_inverse=True)
    whole, left = np.bincount(kind), np.bincount(kind, stay)
    if (left == 0).any():
        raise ValueError(
            f"Strata need at least 2 images of each class, in different groups; "
            f"class {kinds[left.argmin()]} has {whole[left.argmin()]}. Make more images, or leave the "
            "labels out."
        )
    return stay * (whole / left * (stay.sum() / len(member)))[kind]


def even(member: np.ndarray, labels: np.ndarray | None) -> bool:
    """Return whether every group takes the same share of every class, so that what stays needs no weights."""
    if labels is None:
        return True
    kind = np.unique(labels, return_inverse=True)[1]
    table = np.zeros((kind.max() + 1, member.max() + 1))
    np.add.at(table, (kind, member), 1)
    share = table / table.sum(axis=1, keepdims=True)
    return bool((np.ptp(share, axis=0) < 1e-12).all())


def check_groups(n: int, m: int, groups: int) -> None:
    """Refuse a sample that is too small to be cut into groups of two.

    Raises:
        ValueError: If min(n, m) < 2 * groups or groups < 2.
    """
    if groups < 2:
        raise ValueError(f"A jackknife needs at least 2 groups, got {groups}.")
    if min(n, m) < 2 * groups:
        raise ValueError(
            f"An interval by {groups} groups needs at least {2 * groups} images on each side, got n = {n} and "
            f"m = {m}. Make more images, or ask for fewer groups."
        )


def jackknife(full: float, left_out: np.ndarray, *, unbiased: bool = False, level: float = 0.95) -> Estimate:
    """Combine the full estimate with the estimates that leave one group out.

    Arguments:
        full: Estimate from all images.
        left_out: (G,) estimates, the k-th without group k.
        unbiased: True quotes `full` itself, which is right for an unbiased estimator such as KID.
        level: Confidence of the interval, in (0, 1).

    Returns:
        The estimate with its interval.
    """
    left_out = np.asarray(left_out, np.float64)
    groups, mean = len(left_out), float(np.mean(left_out))
    value = full if unbiased else groups * full - (groups - 1) * mean
    se = math.sqrt((groups - 1) / groups * float(np.sum((left_out - mean) ** 2)))
    reach = student(0.5 + level / 2, groups - 1) * se
    return Estimate(value, (value - reach, value + reach), se, full, groups, tuple(left_out.tolist()))


def average(estimates: Sequence[Estimate], level: float = 0.95) -> Estimate:
    """Return the mean of estimates that left the same groups out, with the interval of that mean.

    Arguments:
        estimates: Each with its `left_out`; group k of one is related to group k of another only.
        level: Confidence of the interval.
    """
    left_out = np.mean([estimate.left_out for estimate in estimates], axis=0)
    unbiased = all(estimate.value == estimate.plain for estimate in estimates)
    return jackknife(float(np.mean([e.plain for e in estimates])), left_out, unbiased=unbiased, level=level)


@cache
def student(probability: float, freedom: int) -> float:
    """Return a quantile of Student's t distribution.

    Arguments:
        probability: In [0.5, 1).
        freedom: Degrees of freedom, >= 1.

    Returns:
        t such that P(T <= t) = probability, to about 1e-9.

    >>> round(student(0.975, 19), 6), round(student(0.975, 1), 5)
    (2.093024, 12.7062)
    """
    # With t = sqrt(freedom) tan(a), P(0 < T < t) is proportional to the integral of cos(u)^(freedom - 1) over (0, a).
    nodes, weights = np.polynomial.legendre.leggauss(64)

    def mass(angle: float) -> float:
        return float(angle / 2 * np.sum(weights * np.cos(angle / 2 * (nodes + 1)) ** (freedom - 1)))

    total, low, high = 2 * mass(math.pi / 2), 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 + mass(middle) / total < probability else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)
