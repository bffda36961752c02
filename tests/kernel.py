"""The squared maximum mean discrepancy in its two textbook forms, by the sums that `metrics.kid` is made of."""

from __future__ import annotations

import numpy as np

from sfumato.metrics.kid import self_sums, sums


def mmd2(x: np.ndarray, y: np.ndarray, *, unbiased: bool = True) -> float:
    """Of rows (n, d) and (m, d); biased keeps the pairs of an image with itself."""
    n, m = len(x), len(y)
    wx, wy = np.ones((n, 1)), np.ones((m, 1))
    cross = float(sums(x, y, wx, wy)[0]) / (n * m)
    if unbiased:
        within_x, within_y = self_sums(x, wx) / (n * (n - 1)), self_sums(y, wy) / (m * (m - 1))
    else:
        within_x, within_y = sums(x, x, wx, wx) / n**2, sums(y, y, wy, wy) / m**2
    return float(within_x[0] + within_y[0] - 2 * cross)
