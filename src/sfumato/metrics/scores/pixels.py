"""Scores of pixel values alone; the arithmetic is in `metrics.saturation`."""

from __future__ import annotations

from collections.abc import Callable

from sfumato.metrics.features import Extractor, ImageShape
from sfumato.metrics.jackknife import GROUPS
from sfumato.metrics.metric import Metric
from sfumato.metrics.saturation import Contrast, Saturation, mean_share


def saturation() -> Metric:
    """Share of channel values at 0 or 255; its floor, the value of the reference, is where it should be."""
    return _mean("saturation", Saturation)


def contrast() -> Metric:
    """Standard deviation of an image's channel values; its floor, the value of the reference, is where it should be."""
    return _mean("contrast", Contrast)


def _mean(name: str, own: Callable[[ImageShape], Extractor]) -> Metric:
    """Return the metric that is a mean of one number of each image."""
    return Metric(
        name,
        1,
        lambda x, y, strata, members: mean_share(x, strata[0]),
        "mean over images, error by a delete-a-group jackknife that keeps the share of each stratum",
        {"groups": GROUPS},
        "neither",
        least=2 * GROUPS,
        own=own,
        floor="reference",
        groups=True,
    )
