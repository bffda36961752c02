"""Scores of pixel values alone; the arithmetic is in `metrics.saturation`."""

from __future__ import annotations

from sfumato.metrics.jackknife import GROUPS
from sfumato.metrics.metric import Metric
from sfumato.metrics.saturation import Saturation, mean_share


def saturation() -> Metric:
    """Share of channel values at 0 or 255; its floor, the value of the reference, is where it should be."""
    return Metric(
        "saturation",
        1,
        lambda x, y, strata, members: mean_share(x, strata[0]),
        "mean over images, error by a delete-a-group jackknife that keeps the share of each stratum",
        {"groups": GROUPS},
        "neither",
        least=2 * GROUPS,
        own=Saturation,
        floor="reference",
        groups=True,
    )
