"""Kernel distance (KID): the squared maximum mean discrepancy with a cubic kernel, estimated without bias.

    k(x, y) = (x.y/d + 1)^3
    KID = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j)

All images enter at once (no random subsets), in blocks, so memory does not grow with n.  The estimate is unbiased,
hence sometimes negative; a negative value is reported as it is.  Its standard error is a delete-a-group jackknife,
which costs nothing extra: the sums of the kernel over each pair of groups give every leave-one-group-out value.
(The spread of subset values, often printed beside KID, is not an error of the mean.)

Strata.  Where the number of images n_a of each class was chosen, two different images are of one class less often than
two independent ones, and the mean over i != j is too low.  Then each pair of classes is averaged by itself, its own
pairs without the diagonal, and weighted by n_a n_b / n^2; that is unbiased for the mixture with those weights.

References:
    Binkowski, Sutherland, Arbel, Gretton. Demystifying MMD GANs. 2018. https://arxiv.org/abs/1801.01401 (eq. 4)
    Gretton, Borgwardt, Rasch, Schoelkopf, Smola. A Kernel Two-Sample Test. 2012.
        https://jmlr.org/papers/v13/gretton12a.html (eq. 3)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sfumato.metrics.jackknife import GROUPS, Estimate, Strata, check_groups, deal, jackknife
from sfumato.metrics.statistics import Features, check_pair


def cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the kernel matrix (x.y/d + 1)^3 of float64 rows: (n, d), (m, d) -> (n, m)."""
    base = x @ y.T
    base /= x.shape[1]
    base += 1
    return base * base * base


def group_sums(x: Features, y: Features, in_x: np.ndarray, in_y: np.ndarray, groups: int,
               block: int = 2048) -> np.ndarray:
    """Sum the kernel over every pair of groups.

    Arguments:
        x: (n, d).
        y: (m, d).
        in_x: int64 (n,), the group of each row of x.
        in_y: int64 (m,), the group of each row of y.
        groups: Number of groups G.
        block: Rows of a block; memory is a few times block^2 numbers.

    Returns:
        float64 (G, G); entry (a, b) sums k(x_i, y_j) over i in group a and j in group b.
    """
    sums = np.zeros((groups, groups))
    one_hot = np.eye(groups)
    for i in range(0, len(x), block):
        left, rows = np.asarray(x[i:i + block], np.float64), one_hot[in_x[i:i + block]]
        for j in range(0, len(y), block):
            right, columns = np.asarray(y[j:j + block], np.float64), one_hot[in_y[j:j + block]]
            sums += rows.T @ cubic(left, right) @ columns
    return sums


def self_sums(x: Features, member: np.ndarray, groups: int, block: int = 2048) -> np.ndarray:
    """Sum the kernel over every pair of groups of one set, without pairing an image with itself."""
    sums = np.zeros((groups, groups))
    one_hot = np.eye(groups)
    for i in range(0, len(x), block):
        left, rows = np.asarray(x[i:i + block], np.float64), one_hot[member[i:i + block]]
        kernel = cubic(left, left)
        np.fill_diagonal(kernel, 0)
        sums += rows.T @ kernel @ rows
        for j in range(i + block, len(x), block):
            part = rows.T @ cubic(left, np.asarray(x[j:j + block], np.float64)) @ one_hot[member[j:j + block]]
            sums += part + part.T
    return sums


def kid(x: Features, y: Features, strata: Strata = (None, None), groups: int = GROUPS,
        level: float = 0.95) -> Estimate:
    """Estimate the kernel distance from all images, unbiased, with a jackknife interval.

    Arguments:
        x: Generated features (n, d), n >= 2 G.
        y: Reference features (m, d), m >= 2 G.
        strata: Labels of either side where the number of each class was chosen (`jackknife.deal`).
        groups: Groups G of the jackknife.
        level: Confidence of the interval.

    Returns:
        The estimate; `value` and `plain` are the same unbiased number.
    """
    x, y = check_pair(x, y)
    check_groups(len(x), len(y), groups)
    in_x, in_y = deal(len(x), groups, strata[0]), deal(len(y), groups, strata[1])
    size_x, size_y = np.bincount(in_x, minlength=groups), np.bincount(in_y, minlength=groups)
    within_x, within_y = _within(x, in_x, strata[0], groups), _within(y, in_y, strata[1], groups)
    xy = group_sums(x, y, in_x, in_y, groups)

    def unbiased(keep: np.ndarray) -> float:
        across = xy[np.ix_(keep, keep)].sum() / (size_x[keep].sum() * size_y[keep].sum())
        return float(within_x(keep) + within_y(keep) - 2 * across)

    everyone = np.arange(groups)
    left_out = np.array([unbiased(np.delete(everyone, k)) for k in range(groups)])
    return jackknife(unbiased(everyone), left_out, unbiased=True, level=level)


def _within(x: Features, member: np.ndarray, labels: np.ndarray | None,
            groups: int) -> Callable[[np.ndarray], float]:
    """Return the mean kernel of two different images of one set as a function of the groups that are kept."""
    whole, size = self_sums(x, member, groups), np.bincount(member, minlength=groups)
    if labels is None:
        return lambda keep: whole[np.ix_(keep, keep)].sum() / (size[keep].sum() * (size[keep].sum() - 1))
    kinds = []
    for kind in np.unique(labels):
        rows = np.flatnonzero(labels == kind)
        count = np.bincount(member[rows], minlength=groups)
        if len(rows) - count.max() < 2:
            raise ValueError(f"Strata need at least 2 images of each class when a group is left out; class {kind} has "
                             f"{len(rows)} in all. Make more images, or leave the labels out.")
        kinds.append((self_sums(x[rows], member[rows], groups), count))

    def mean(keep: np.ndarray) -> float:
        pick = np.ix_(keep, keep)  # n_a^2 times the mean over pairs of class a is its sum times 1 + 1/(n_a - 1)
        own = sum(sums[pick].sum() / (count[keep].sum() - 1) for sums, count in kinds)
        return (whole[pick].sum() + own) / size[keep].sum() ** 2

    return mean


def mmd2(x: Features, y: Features, *, unbiased: bool = True) -> float:
    """Return the squared maximum mean discrepancy with the cubic kernel.

    Arguments:
        x: (n, d), n >= 2.
        y: (m, d), m >= 2.
        unbiased: False keeps the pairs of an image with itself (never negative, biased upwards).

    Returns:
        The squared discrepancy.
    """
    x, y = check_pair(x, y)
    n, m = len(x), len(y)
    in_x, in_y = np.zeros(n, np.int64), np.zeros(m, np.int64)
    cross = float(group_sums(x, y, in_x, in_y, 1)[0, 0]) / (n * m)
    if unbiased:
        within_x, within_y = self_sums(x, in_x, 1) / (n * (n - 1)), self_sums(y, in_y, 1) / (m * (m - 1))
    else:
        within_x, within_y = group_sums(x, x, in_x, in_x, 1) / n**2, group_sums(y, y, in_y, in_y, 1) / m**2
    return float(within_x[0, 0] + within_y[0, 0] - 2 * cross)


def kid_subsets(x: Features, y: Features, rows_x: np.ndarray, rows_y: np.ndarray) -> np.ndarray:
    """Return the unbiased value of given subsets, for comparison with tools that report subset means.

    Arguments:
        x: (n, d).
        y: (m, d).
        rows_x: int (subsets, size) rows of x.
        rows_y: int (subsets, size) rows of y.

    Returns:
        float64 (subsets,); other tools print its mean and its standard deviation, which is not an error.
    """
    return np.array([mmd2(x[a], y[b]) for a, b in zip(rows_x, rows_y)])
