"""Kernel distance (KID): the squared maximum mean discrepancy with a cubic kernel, estimated without bias.

    k(x, y) = (x.y/d + 1)^3
    KID = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j)

All images enter at once (no random subsets), in blocks, so memory does not grow with n.  The estimate is unbiased,
hence sometimes negative; a negative value is reported as it is.  Its standard error is a delete-a-group jackknife,
which costs nothing extra: the sums of the kernel over each pair of groups give every leave-one-group-out value.
(The spread of subset values, often printed beside KID, is not an error of the mean.)

References:
    Binkowski, Sutherland, Arbel, Gretton. Demystifying MMD GANs. 2018. https://arxiv.org/abs/1801.01401 (eq. 4)
    Gretton, Borgwardt, Rasch, Schoelkopf, Smola. A Kernel Two-Sample Test. 2012.
        https://jmlr.org/papers/v13/gretton12a.html (eq. 3)
"""

from __future__ import annotations

import numpy as np

from sfumato.metrics.jackknife import GROUPS, Estimate, check_groups, group_of, jackknife
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


def kid(x: Features, y: Features, groups: int = GROUPS, level: float = 0.95) -> Estimate:
    """Estimate the kernel distance from all images, unbiased, with a jackknife interval.

    Arguments:
        x: Generated features (n, d), n >= 2 G.
        y: Reference features (m, d), m >= 2 G.
        groups: Groups G of the jackknife.
        level: Confidence of the interval.

    Returns:
        The estimate; `value` and `plain` are the same unbiased number.
    """
    x, y = check_pair(x, y)
    check_groups(len(x), len(y), groups)
    in_x, in_y = group_of(0, len(x), groups), group_of(0, len(y), groups)
    size_x, size_y = np.bincount(in_x, minlength=groups), np.bincount(in_y, minlength=groups)
    xx, yy = self_sums(x, in_x, groups), self_sums(y, in_y, groups)
    xy = group_sums(x, y, in_x, in_y, groups)

    def unbiased(keep: np.ndarray) -> float:
        n, m = int(size_x[keep].sum()), int(size_y[keep].sum())
        pick = np.ix_(keep, keep)
        return float(xx[pick].sum() / (n * (n - 1)) + yy[pick].sum() / (m * (m - 1)) - 2 * xy[pick].sum() / (n * m))

    everyone = np.arange(groups)
    left_out = np.array([unbiased(np.delete(everyone, k)) for k in range(groups)])
    return jackknife(unbiased(everyone), left_out, unbiased=True, level=level)


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
