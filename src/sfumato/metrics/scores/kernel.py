"""The kernel distance; the arithmetic is in `metrics.kid`."""

from __future__ import annotations

from sfumato.metrics import kid as kernel
from sfumato.metrics.jackknife import GROUPS
from sfumato.metrics.metric import Metric


def kid() -> Metric:
    """Kernel distance of features (squared MMD), unbiased at any number of images."""
    return Metric(
        "KID",
        2,
        lambda x, y, strata, members: kernel.kid(x, y, strata, members=members),
        "unbiased over all images, error by a delete-a-group jackknife that keeps the share of each stratum",
        {"groups": GROUPS},
        least=2 * GROUPS,
        groups=True,
    )
