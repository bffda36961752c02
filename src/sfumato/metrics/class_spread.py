"""How much the images of a set vary: the mean distance of two of them, in the space of features.

    spread = mean_{i != j} |h(x_i) - h(x_j)|

The mean over pairs is unbiased whatever the number of images, so the spread of 100 generated frogs stands beside that
of 1,000 real ones. A class whose real images vary little is easier to hit; a model whose spread is below that of the
real images has lost some of their variety. The interval is a delete-a-group jackknife over images.

Reference: Hoeffding. A Class of Statistics with Asymptotically Normal Distribution. 1948.
https://doi.org/10.1214/aoms/1177730196 (the mean over pairs as a U-statistic)
"""

from __future__ import annotations

import numpy as np

from sfumato.metrics.jackknife import GROUPS, Estimate, check_groups, deal, jackknife
from sfumato.metrics.statistics import Features

BLOCK = 2048


def class_spread(x: Features, groups: int = GROUPS, level: float = 0.95) -> Estimate:
    """Estimate the mean distance of two images, with its interval.

    Arguments:
        x: Features (n, d) of the images of one class, n >= 2 G.
        groups: Groups G of the jackknife.
        level: Confidence of the interval.

    Returns:
        The estimate; `value` and `plain` are the same unbiased number.

    Raises:
        ValueError: If there are too few images.
    """
    n = len(x)
    check_groups(n, n, groups)
    member = np.eye(groups)[deal(n, groups)]
    between = np.zeros((groups, groups))  # sums of distances from group to group
    for i in range(0, n, BLOCK):
        for j in range(0, n, BLOCK):
            rows, columns = (np.asarray(x[k : k + BLOCK], np.float64) for k in (i, j))
            between += member[i : i + BLOCK].T @ _distances(rows, columns, i == j) @ member[j : j + BLOCK]
    whole, left = between.sum(), n - member.sum(0)
    without = whole - 2 * between.sum(1) + between.diagonal()
    return jackknife(float(whole / (n * (n - 1))), without / (left * (left - 1)), unbiased=True, level=level)


def _distances(x: np.ndarray, y: np.ndarray, same: bool) -> np.ndarray:
    square = np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T
    if same:
        np.fill_diagonal(square, 0)
    distance: np.ndarray = np.sqrt(np.maximum(square, 0))
    return distance
