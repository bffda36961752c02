"""Precision and recall, density and coverage: fidelity and diversity by nearest-neighbour balls.

Around each real image lies a ball that reaches to its k-th nearest real neighbour (itself not counted); around each
generated image likewise among the generated ones.

    precision   share of generated images inside some real ball             k = 3, boundary counts (<=)
    recall      share of real images inside some generated ball             k = 3, boundary counts (<=)
    density     mean number of real balls around a generated image, over k  k = 5, boundary does not count (<)
    coverage    share of real balls that hold a generated image             k = 5, boundary does not count (<)

All four depend on n, m and k, which belong to the protocol.  For two samples of one distribution density has the
expectation 1, and coverage 1 - prod_{j < k} (m - 1 - j)/(n + m - 1 - j): all k nearest among the others are real
otherwise.  With duplicates a radius can be 0: the closed ball of
precision still holds an exact copy, the open one of coverage holds nothing.

The intervals are those of the share (Wilson) or the mean over the counted images, with the balls held fixed.

References:
    Kynkaanniemi, Karras, Laine, Lehtinen, Aila. Improved Precision and Recall Metric for Assessing Generative
        Models. 2019. https://arxiv.org/abs/1904.06991 (eq. 1-2)
    Naeem, Oh, Uh, Choi, Yoo. Reliable Fidelity and Diversity Metrics for Generative Models. 2020.
        https://arxiv.org/abs/2002.09797 (eq. 3-4, 9)
"""

from __future__ import annotations

import math

from sfumato.metrics.jackknife import Estimate
from sfumato.metrics.neighbours import inside, nearest
from sfumato.metrics.statistics import Features, check_pair

NORMAL = 1.959963984540054  # 97.5% quantile of the normal distribution


def share(hits: float, total: float) -> Estimate:
    """Estimate a probability from counts, with Wilson's 95% interval.

    >>> share(20, 20).value, round(share(20, 20).interval[0], 3)
    (1.0, 0.839)
    """
    p, z = hits / total, NORMAL**2 / total
    centre, reach = (p + z / 2) / (1 + z), math.sqrt(z * (p * (1 - p) + z / 4)) / (1 + z)
    return Estimate(p, (centre - reach, centre + reach), math.sqrt(p * (1 - p) / total), p, groups=0)


def precision(x: Features, y: Features, k: int = 3) -> Estimate:
    """Estimate the share of generated images inside some real ball.

    Arguments:
        x: Generated features (n, d), n >= 2.
        y: Real features (m, d), m > k.
        k: Neighbours that set the balls.

    Returns:
        The share with Wilson's interval, the balls held fixed.

    Raises:
        ValueError: If there are too few images for k neighbours.
    """
    x, y = check_pair(x, y)
    counts, _ = inside(x, y, nearest(y, y, k, same=True)[0][:, -1], closed=True)
    return share(int((counts > 0).sum()), len(x))


def recall(x: Features, y: Features, k: int = 3) -> Estimate:
    """Estimate the share of real images inside some generated ball: `precision` with the roles exchanged."""
    return precision(y, x, k)


def density(x: Features, y: Features, k: int = 5) -> Estimate:
    """Estimate the mean number of real balls around a generated image, over k; arguments as in `precision`."""
    x, y = check_pair(x, y)
    counts, _ = inside(x, y, nearest(y, y, k, same=True)[0][:, -1], closed=False)
    value, se = float(counts.mean() / k), float(counts.std(ddof=1) / k / math.sqrt(len(x)))
    return Estimate(value, (value - NORMAL * se, value + NORMAL * se), se, value, groups=0)


def coverage(x: Features, y: Features, k: int = 5) -> Estimate:
    """Estimate the share of real balls that hold a generated image; arguments as in `precision`."""
    x, y = check_pair(x, y)
    _, held = inside(x, y, nearest(y, y, k, same=True)[0][:, -1], closed=False)
    return share(int((held > 0).sum()), len(y))
