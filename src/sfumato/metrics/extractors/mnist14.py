"""Features for mnist14 images by a network that this project trains; see `classifier`."""

from __future__ import annotations

from sfumato.metrics.extractors.classifier import ClassifierFeatures
from sfumato.metrics.features import ImageShape


def mnist14(shape: ImageShape) -> ClassifierFeatures:
    """Compare features of a classifier of MNIST halved to 14x14 grey, d = 112."""
    return ClassifierFeatures("mnist14", shape)
