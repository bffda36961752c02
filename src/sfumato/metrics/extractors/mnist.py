"""Features for mnist images by a network that this project trains; see `classifier`."""

from __future__ import annotations

from sfumato.metrics.extractors.classifier import ClassifierFeatures
from sfumato.metrics.features import ImageShape


def mnist(shape: ImageShape) -> ClassifierFeatures:
    """Compare features of a classifier of MNIST, 28x28 grey, d = 48."""
    return ClassifierFeatures("mnist", shape)
