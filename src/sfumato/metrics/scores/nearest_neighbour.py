"""The two-sample test by nearest neighbours; the arithmetic is in `metrics.memorization`."""

from __future__ import annotations

from sfumato.metrics.flags import flagged
from sfumato.metrics.jackknife import Estimate
from sfumato.metrics.memorization import two_sample
from sfumato.metrics.metric import Metric
from sfumato.metrics.statistics import Features


def one_nn() -> Metric:
    """Accuracy of telling generated from real by the nearest neighbour: 0.5 if alike, below it an alarm (1nn)."""
    return Metric(
        "1-NN",
        1,
        lambda x, y, strata, members: _as_many(x, y),
        "leave-one-out accuracy of telling generated from real by the nearest neighbour, as many of each; 0.5 if alike",
        {},
        alarm=_copying,
    )


def _as_many(x: Features, y: Features) -> Estimate:
    """Compare the first images of each set, as many of both."""
    size = min(len(x), len(y))
    return two_sample(x[:size], y[:size])


def _copying(estimate: Estimate) -> str:
    low, high = estimate.interval
    return flagged("copies") if high < 0.5 else ""
