"""Features for digits images by a network that this project trains; see `classifier`."""

from __future__ import annotations

from sfumato.metrics.extractors.classifier import ClassifierFeatures
from sfumato.metrics.features import ImageShape


def digits(shape: ImageShape) -> ClassifierFeatures:
    """Compare features of a classifier of the 8x8 grey digits, d = 64."""
    return ClassifierFeatures("digits", shape)
