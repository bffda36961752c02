"""The numbers that a metric reads of an image: features, or another view that one pass of the network gives too."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from sfumato.metrics.features import Extractor, ImageShape, recorded
from sfumato.metrics.metric import Metric


@runtime_checkable
class Predicts(Protocol):
    """An extractor that tells classes apart, too.

    Attributes:
        name: Name in the protocol.
        weights_hash: sha256 of the weights.
        classes: Number of classes.
    """

    name: str
    weights_hash: str
    classes: int

    def logits(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, C, H, W) to float32 logits (B, classes)."""
        ...

    def describe(self) -> dict[str, Any]:
        """Describe whatever changes the logits. JSON values only."""
        ...


@runtime_checkable
class HasMaps(Protocol):
    """An extractor whose features are means of maps, which sFID compares."""

    def spatial_twin(self) -> Extractor:
        """Return the extractor of the maps."""
        ...


class Logits:
    """The class predictions of a classifier, as an extractor of its name.

    Arguments:
        network: Gives logits beside features.
    """

    def __init__(self, network: Predicts):
        self.name, self.weights_hash, self.dimension = network.name, network.weights_hash, network.classes
        self._network = network

    def __call__(self, images: Tensor) -> Tensor:
        return self._network.logits(images)

    def describe(self) -> dict[str, Any]:
        """Describe the network, as for its features."""
        return self._network.describe()


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
    if metric.view == "spatial" and isinstance(extract, HasMaps):
        return extract.spatial_twin()
    if metric.view == "logits" and isinstance(extract, Predicts):
        return Logits(extract)
    raise ValueError(
        f"Extractor '{extract.name}' has no {metric.view}: sFID needs 'inception', the Inception Score "
        "'inception' or a classifier such as 'fashion-mnist'. Choose another, or leave it out."
    )
