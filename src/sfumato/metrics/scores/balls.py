"""Shares by nearest-neighbour balls; the arithmetic is in `metrics.prdc`."""

from __future__ import annotations

from collections.abc import Callable

from sfumato.metrics import prdc
from sfumato.metrics.jackknife import Estimate
from sfumato.metrics.metric import Metric
from sfumato.metrics.statistics import Features


def _share(name: str, estimate: Callable[[Features, Features], Estimate], balls: str, k: int) -> Metric:
    return Metric(
        name, 1, lambda x, y, strata, members: estimate(x, y), f"{balls} balls", {"k": k}, "higher", least=k + 1
    )


def precision() -> Metric:
    """Share of generated images inside some real ball: fidelity."""
    return _share("precision", prdc.precision, "closed", 3)


def recall() -> Metric:
    """Share of real images inside some generated ball: diversity."""
    return _share("recall", prdc.recall, "closed", 3)


def density() -> Metric:
    """Mean number of real balls around a generated image, over k: fidelity that outliers do not move."""
    return _share("density", prdc.density, "open", 5)


def coverage() -> Metric:
    """Share of real balls that hold a generated image: diversity."""
    return _share("coverage", prdc.coverage, "open", 5)
