"""Pixels as features: the mean and covariance of the images themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sfumato.metrics.features import ImageShape, check_images


class Pixels:
    """The values of an image in [-1, 1], in C, H, W order."""

    name = "pixels"
    weights_hash = "none"

    def __init__(self, shape: ImageShape):
        self.shape = shape
        self.dimension = shape[0] * shape[1] * shape[2]

    def __call__(self, images: Tensor) -> Tensor:
        check_images(self.name, images, self.shape)
        return (images.to(torch.float32) / 127.5 - 1).flatten(1)

    def describe(self) -> dict[str, Any]:
        return {"layer": "pixels", "resize": "none", "scaling": "x / 127.5 - 1", "dtype": "float32"}


def pixels(shape: ImageShape) -> Pixels:
    """Compare the pixels themselves: no weights, d = C H W; for small images such as digits.

    >>> pixels((1, 8, 8)).dimension
    64
    """
    return Pixels(shape)
