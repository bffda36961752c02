"""Kernel distance (KID): the squared maximum mean discrepancy with a cubic kernel, estimated without bias.

    k(x, y) = (x.y/d + 1)^3
    KID = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j)

All images enter at once (no random subsets), in blocks, so memory does not grow with n.  The estimate is unbiased,
hence sometimes negative; a negative value is reported as it is.  Its standard error is a delete-a-group jackknife,
which costs little extra: each block of the kernel is summed once for every group that is left out.
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

import numpy as np

from sfumato.metrics.jackknife import GROUPS, Estimate, Members, Strata, check_groups, deal, jackknife, weights
from sfumato.metrics.statistics import Features, check_pair


def cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the kernel matrix (x.y/d + 1)^3 of float64 rows: (n, d), (m, d) -> (n, m)."""
    base = x @ y.T
    base /= x.shape[1]
    base += 1
    return base * base * base


def sums(x: Features, y: Features, wx: np.ndarray, wy: np.ndarray, block: int = 2048) -> np.ndarray:
    """Sum the kernel over all pairs, once for each column of weights.

    Arguments:
        x: (n, d).
        y: (m, d).
        wx: float64 (n, w), weights of the rows of x.
        wy: float64 (m, w), weights of the rows of y.
        block: Rows of a block; memory is a few times block^2 numbers.

    Returns:
        float64 (w,); entry c is sum_ij wx[i, c] wy[j, c] k(x_i, y_j).
    """
    total = np.zeros(wx.shape[1])
    for i in range(0, len(x), block):
        left = np.asarray(x[i : i + block], np.float64)
        for j in range(0, len(y), block):
            kernel = cubic(left, np.asarray(y[j : j + block], np.float64))
            total += np.sum(wx[i : i + block] * (kernel @ wy[j : j + block]), axis=0)
    return total


def self_sums(x: Features, weight: np.ndarray, block: int = 2048) -> np.ndarray:
    """Sum the kernel over all pairs of different images of one set, once for each column of weights (n, w)."""
    total = np.zeros(weight.shape[1])
    for i in range(0, len(x), block):
        left, rows = np.asarray(x[i : i + block], np.float64), weight[i : i + block]
        kernel = cubic(left, left)
        np.fill_diagonal(kernel, 0)
        total += np.sum(rows * (kernel @ rows), axis=0)
        for j in range(i + block, len(x), block):
            kernel = cubic(left, np.asarray(x[j : j + block], np.float64))
            total += 2 * np.sum(rows * (kernel @ weight[j : j + block]), axis=0)
    return total


def kid(
    x: Features,
    y: Features,
    strata: Strata = (None, None),
    groups: int = GROUPS,
    level: float = 0.95,
    members: Members = (None, None),
) -> Estimate:
    """Estimate the kernel distance from all images, unbiased, with a jackknife interval.

    Arguments:
        x: Generated features (n, d), n >= 2 G.
        y: Reference features (m, d), m >= 2 G.
        strata: Labels of either set where the number of each class was chosen (`jackknife.deal`).
        groups: Groups G of the jackknife.
        level: Confidence of the interval.
        members: Groups of either set's images if they were dealt elsewhere; else `jackknife.deal` deals them.

    Returns:
        The estimate; `value` and `plain` are the same unbiased number.
    """
    x, y = check_pair(x, y)
    check_groups(len(x), len(y), groups)
    wx, wy = (_columns(len(rows), groups, labels, member) for rows, labels, member in zip((x, y), strata, members))
    across = sums(x, y, wx, wy) / (wx.sum(0) * wy.sum(0))
    values = _within(x, wx, strata[0]) + _within(y, wy, strata[1]) - 2 * across
    return jackknife(float(values[0]), values[1:], unbiased=True, level=level)


def _columns(n: int, groups: int, labels: np.ndarray | None, member: np.ndarray | None) -> np.ndarray:
    """Return weights (n, 1 + G): of all images, then of all but group k."""
    member = deal(n, groups, labels) if member is None else member
    return np.stack([np.ones(n), *(weights(member, labels, k) for k in range(groups))], axis=1)


def _within(x: Features, weight: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """Return the mean kernel of two different images of one set (w,), one for each column of weights (n, w)."""
    whole, size = self_sums(x, weight), np.count_nonzero(weight, axis=0)
    if labels is None:
        return whole / (size * (size - 1))
    for kind in np.unique(labels):
        rows = np.flatnonzero(labels == kind)
        count = np.count_nonzero(weight[rows], axis=0)
        if count.min() < 2:
            raise ValueError(
                f"Strata need at least 2 images of each class when a group is left out; class {kind} has "
                f"{len(rows)} in all. Make more images, or leave the labels out."
            )
        # n_a^2 times the mean over pairs of class a is its sum times 1 + 1/(n_a - 1)
        whole = whole + self_sums(x[rows], weight[rows]) / (count - 1)
    return whole / weight.sum(0) ** 2
