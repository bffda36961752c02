"""Nearest neighbours, exactly, in memory that does not grow with the sets.

Squared distances come from one matrix product a block,  |x|^2 + |y|^2 - 2 x.y , whose rounding error (about 1e-15 of
the squared norms) would hide that two equal images have distance 0.  So the product only chooses candidates; the
distances that are returned or compared with a radius are sums of squared differences in float64.  Then an exact copy
is found at distance 0, and a point on the boundary of a ball counts as on it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sfumato.metrics.statistics import Features

SPARE = 8  # more candidates than asked for, so that rounding of the product cannot lose a neighbour
ROUNDING = 1e-11  # relative error granted to the product; squared distances this near a radius are computed again


def squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the squared distance of each row of x to the same row of y, in float64."""
    difference = np.asarray(x, np.float64) - np.asarray(y, np.float64)
    return np.sum(difference * difference, axis=-1)


def products(x: Features, y: Features, block: int) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Yield (i, j, squared distances, their rounding errors) for blocks of rows i.. of x and j.. of y."""
    centre = np.asarray(y[:block], np.float64).mean(0)
    for i in range(0, len(x), block):
        left = np.asarray(x[i : i + block], np.float64) - centre
        left_norm = np.sum(left * left, axis=1)[:, None]
        for j in range(0, len(y), block):
            right = np.asarray(y[j : j + block], np.float64) - centre
            norms = left_norm + np.sum(right * right, axis=1)
            yield i, j, norms - 2 * (left @ right.T), ROUNDING * norms


def nearest(
    x: Features, y: Features, k: int = 1, *, same: bool = False, block: int = 2048
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest rows of y for each row of x.

    Arguments:
        x: (n, d).
        y: (m, d), m >= k, or m > k if `same`.
        k: Number of neighbours.
        same: x and y are the same set, and an image is not its own neighbour (its equal copies are).
        block: Rows of a block.

    Returns:
        Squared distances (n, k), ascending, and the rows of y (n, k) they belong to.

    Raises:
        ValueError: If there are too few rows.
    """
    if len(y) - same < k or k < 1:
        raise ValueError(f"{k} neighbours need at least {k + same} images to search, got {len(y)}.")
    keep = min(k + SPARE, len(y) - same)
    best = np.full((len(x), keep), np.inf)
    index = np.zeros((len(x), keep), np.int64)
    for i, j, distance, _ in products(x, y, block):
        if same and i == j:
            np.fill_diagonal(distance, np.inf)
        part = slice(i, i + len(distance))
        columns = np.broadcast_to(np.arange(j, j + distance.shape[1]), distance.shape)
        both, names = np.hstack((best[part], distance)), np.hstack((index[part], columns))
        chosen = np.argpartition(both, keep - 1, axis=1)[:, :keep]
        best[part], index[part] = np.take_along_axis(both, chosen, 1), np.take_along_axis(names, chosen, 1)
    for i in range(0, len(x), 256):
        part = slice(i, i + 256)
        exact = squared(x[part][:, None, :], y[index[part]])
        order = np.lexsort((index[part], exact), axis=1)
        best[part], index[part] = np.take_along_axis(exact, order, 1), np.take_along_axis(index[part], order, 1)
    return best[:, :k], index[:, :k]


def inside(
    x: Features, centres: Features, radius: np.ndarray, *, closed: bool, block: int = 2048
) -> tuple[np.ndarray, np.ndarray]:
    """Count which points lie in which balls.

    Arguments:
        x: Points (n, d).
        centres: Centres of balls (m, d).
        radius: Squared radii (m,).
        closed: Whether the boundary belongs to a ball (`<=`) or not (`<`).
        block: Rows of a block.

    Returns:
        int64 (n,), in how many balls each point lies; int64 (m,), how many points each ball holds.
    """
    of_points, of_balls = np.zeros(len(x), np.int64), np.zeros(len(centres), np.int64)
    for i, j, distance, error in products(x, centres, block):
        limit = radius[j : j + distance.shape[1]]
        within = distance <= limit if closed else distance < limit
        a, b = np.nonzero(np.abs(distance - limit) <= error)
        for part in range(0, len(a), 4096):
            p, q = a[part : part + 4096], b[part : part + 4096]
            exact = squared(x[i + p], centres[j + q])
            within[p, q] = exact <= limit[q] if closed else exact < limit[q]
        of_points[i : i + len(distance)] += within.sum(1)
        of_balls[j : j + distance.shape[1]] += within.sum(0)
    return of_points, of_balls
