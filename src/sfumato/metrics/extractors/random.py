"""Features of an untrained convolutional network with seeded weights.

Three convolutions with ReLU, the last two of stride 2, widths 32, 64, 128, and two spatial moments of the last map:
its mean and its root mean square.  Random features see edges, texture and layout but no meaning; they need no data set
and no download, so they are the common ground for images nobody trained a classifier on.

Weights are He-uniform from addressed noise:  w = sqrt(6 / fan_in) (2u - 1),  u of address (seed, layer, element).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sfumato.core.noise import uniform
from sfumato.metrics.features import ExtractorShapeError, ImageShape, check_images, exact_float32

WIDTHS, STRIDES = (32, 64, 128), (1, 2, 2)


class RandomFeatures:
    """Moments of the last map of a random convolutional network."""

    name = "random"
    dimension = 2 * WIDTHS[-1]

    def __init__(self, shape: ImageShape, seed: int):
        if min(shape[1:]) < 8:
            raise ExtractorShapeError(
                f"Extractor 'random' takes images of 8x8 pixels and more, got {shape[1]}x{shape[2]}. "
                "Use 'pixels' for smaller ones."
            )
        self.shape, self.seed = shape, seed
        self.weights_hash = f"he-uniform philox seed {seed}"
        channels = (shape[0], *WIDTHS)
        self.kernels = [self._kernel(layer, cin, cout) for layer, (cin, cout) in enumerate(zip(channels, WIDTHS))]

    def _kernel(self, layer: int, cin: int, cout: int) -> Tensor:
        u = uniform([layer], (cout, cin, 3, 3), seed=self.seed, purpose="random features")[0]
        return ((2 * u - 1) * math.sqrt(6 / (9 * cin))).to(torch.float32)

    def __call__(self, images: Tensor) -> Tensor:
        check_images(self.name, images, self.shape)
        with exact_float32(images.device):
            x = images.to(torch.float32) / 127.5 - 1
            for kernel, stride in zip(self.kernels, STRIDES):
                x = functional.conv2d(x, kernel.to(x.device), stride=stride, padding=1).relu()
            return torch.cat((x.mean((2, 3)), x.square().mean((2, 3)).sqrt()), dim=1)

    def describe(self) -> dict[str, Any]:
        return {
            "layer": "mean and rms of map 3",
            "resize": "none",
            "scaling": "x / 127.5 - 1",
            "dtype": "float32",
            "widths": list(WIDTHS),
            "seed": self.seed,
        }


def random(shape: ImageShape, seed: int = 0) -> RandomFeatures:
    """Compare features of an untrained, seeded convolutional network: any images of 8x8 and more, d = 256.

    Arguments:
        shape: (C, H, W) of the images.
        seed: Seed of the network's weights.
    """
    return RandomFeatures(shape, seed)
