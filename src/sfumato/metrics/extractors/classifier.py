"""The project's own feature networks: small residual classifiers of grey images.

A classifier trained on real images turns an image into numbers that mean something for that data set.  The scores
of this project on Fashion-MNIST, MNIST and the digits are taken in the layer before the last of such a network:

    stem       conv 3x3, w0
    reduce     conv 3x3 with stride size / grid, w1        (28 -> 14; 14 -> 14 and 8 -> 8 keep their grid)
    block      x + conv(relu(conv(x)))                     w1
    reduce     a residual block of stride 2, w1 -> w2
    block      w2
    features   spatial mean of the last rectified map      d = w2
    head       linear, one logit a class

While it learns, every convolution is followed by batch normalisation.  At rest the normalisation is folded into the
convolution (an exact identity in evaluation mode), the last layers are rescaled so that the mean square of a feature
over the training set is 1 (so the kernel (x.y/d + 1)^3 of KID is of the same order in every network), and the numbers
are rounded to float16.  The rounded numbers *are* the network; it is evaluated in float32.

The weights are files of this package.  `python -m sfumato.metrics.train_features --data NAME` makes them again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from sfumato.metrics.features import ImageShape, check_images, check_shape, exact_float32, file_hash

FILES = Path(__file__).resolve().parent.parent / "files"


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a feature network.

    Arguments:
        size: Side of the square input image, in pixels.
        grid: Side of the first feature map after `reduce`; divides `size`.
        widths: Channels of the stem, of the first and of the second stage.
        classes: Number of classes.
        channels: Channels of the input image.
    """

    size: int
    grid: int
    widths: tuple[int, int, int]
    classes: int = 10
    channels: int = 1


class Conv(nn.Sequential):
    """Convolve, and normalise while learning."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, learning: bool):
        conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=not learning)
        super().__init__(*([conv, nn.BatchNorm2d(cout)] if learning else [conv]))


class Block(nn.Module):
    """Add two convolutions to the input; a stride or a new width sends the input through a 1x1 convolution."""

    def __init__(self, cin: int, cout: int, stride: int, learning: bool):
        super().__init__()
        self.first = Conv(cin, cout, 3, stride, learning)
        self.second = Conv(cout, cout, 3, 1, learning)
        self.skip = nn.Identity() if cin == cout and stride == 1 else Conv(cin, cout, 1, stride, learning)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.skip(x) + self.second(functional.relu(self.first(x))))


class FeatureNet(nn.Module):
    """A small residual classifier whose penultimate layer gives features.

    Arguments:
        shape: Sizes and widths.
        learning: True puts batch normalisation behind every convolution; False is the folded form that is shipped.
    """

    def __init__(self, shape: Shape, learning: bool = False):
        super().__init__()
        w0, w1, w2 = shape.widths
        self.shape = shape
        self.stem = Conv(shape.channels, w0, 3, 1, learning)
        self.reduce = Conv(w0, w1, 3, shape.size // shape.grid, learning)
        self.blocks = nn.Sequential(Block(w1, w1, 1, learning), Block(w1, w2, 2, learning), Block(w2, w2, 1, learning))
        self.head = nn.Linear(w2, shape.classes)

    def features(self, x: Tensor) -> Tensor:
        """Map images in [-1, 1] of shape (B, C, size, size) to features (B, d)."""
        x = functional.relu(self.reduce(functional.relu(self.stem(x))))
        return self.blocks(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Map images in [-1, 1] of shape (B, C, size, size) to logits (B, classes)."""
        return self.head(self.features(x))


class ClassifierFeatures:
    """Features of a shipped classifier.

    Arguments:
        name: Name of the extractor; its weights are the package file `<name>_features.safetensors`.
        shape: (C, H, W) of the images, which must be the network's own.

    Raises:
        ValueError: If the network was made for another shape.  An image of another size is another question, so it is
            refused and never resized.
    """

    def __init__(self, name: str, shape: ImageShape):
        path = FILES / f"{name}_features.safetensors"
        with safe_open(path, framework="pt") as file:
            self.recorded = json.loads(file.metadata()["sfumato"])
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (not a mapping)
        made = Shape(**{**self.recorded["shape"], "widths": tuple(self.recorded["shape"]["widths"])})
        check_shape(name, shape, (made.channels, made.size, made.size))
        with torch.device("meta"):
            self.net = FeatureNet(made)
        self.net.load_state_dict(state, assign=True)
        self.net.eval().requires_grad_(False)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.name, self.shape, self.dimension, self.classes = name, shape, made.widths[-1], made.classes
        self.weights_hash = file_hash(path)

    def _prepared(self, images: Tensor) -> Tensor:
        check_images(self.name, images, self.shape)
        self.net.to(images.device)
        return (images.to(torch.float32) / 127.5 - 1).contiguous(memory_format=torch.channels_last)

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, C, H, W) to float32 features (B, d)."""
        with exact_float32(images.device):
            return self.net.features(self._prepared(images))

    def logits(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, C, H, W) to float32 class logits (B, classes)."""
        with exact_float32(images.device):
            return self.net(self._prepared(images))

    def describe(self) -> dict[str, Any]:
        """Describe how an image becomes features; part of a score's protocol."""
        return {
            "layer": "spatial mean before the head",
            "resize": "none",
            "scaling": "x / 127.5 - 1",
            "dtype": "float32",
            "weights": "rounded to float16",
        }
