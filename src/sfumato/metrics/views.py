"""The numbers that a metric reads of an image: features, or another view that one pass of the network gives too."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from sfumato.metrics.features import Extractor, ImageShape, recorded
from sfumato.metrics.metric import Metric


class Logits:
    """The class predictions of a classifier, as an extractor of its name.

    Arguments:
        network: Gives logits beside features.
    """

    def __init__(self, network: Any):
        self.name, self.weights_hash, self.dimension = network.name, network.weights_hash, network.classes
        self._network = network

    def __call__(self, images: Tensor) -> Tensor:
        predicted: Tensor = self._network.logits(images)
        return predicted

    def describe(self) -> dict[str, Any]:
        """Describe the network, as for its features."""
        described: dict[str, Any] = self._network.describe()
        return described


def view_key(metric: Metric) -> str:
    """Name the numbers that a metric reads: those of one key are computed once for all metrics."""
    return metric.view if metric.own is None else metric.name


def view_of(extract: Extractor, metric: Metric, shape: ImageShape) -> Extractor:
    """Return what computes the numbers that a metric reads.

    Arguments:
        extract: The extractor that was chosen.
        metric: Says which view.
        shape: (C, H, W) of the images.

    Raises:
        ValueError: If the extractor has no such view.
    """
    if metric.own is not None:
        return recorded(metric.own(shape), metric.own)
    if metric.view == "features":
        return extract
    if metric.view == "spatial" and (twin := getattr(extract, "spatial_twin", None)):
        return cast(Extractor, twin())
    if metric.view == "logits" and hasattr(extract, "logits"):
        return Logits(extract)
    raise ValueError(
        f"Extractor '{extract.name}' has no {metric.view}: sFID needs 'inception', the Inception Score "
        "'inception' or a classifier such as 'fashion-mnist'. Choose another, or leave it out."
    )
