"""Features of a CIFAR-10 classifier by weights that the user brings; their distance, FD[resnet], is not FID.

The network is the ResNet-56 of He et al. 2016 for images of 32x32 (option A: shortcuts without weights), as trained by
the project pytorch_resnet_cifar10 (BSD 2-clause licence, https://github.com/akamaster/pytorch_resnet_cifar10). The file
`resnet56-4bfd9763.th` is used only if the sha256 of its bytes begins with 4bfd9763; it is read without executing
anything in it. Features are the spatial mean before the last layer. The network learned on CIFAR-10's training images,
so its features are those of these ten classes, and images of another size are refused.

References:
    He et al. Deep Residual Learning for Image Recognition. 2016, section 4.2. https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.metrics.extractors._brought import holding, imagenet_scaled, read_file
from sfumato.metrics.features import ImageShape, check_images, check_shape, exact_float32

HASH = "4bfd9763"
NAME = f"resnet56-{HASH}.th"
SHAPE = (3, 32, 32)


class Block(nn.Module):
    """Add two convolutions to the input, of which a new width keeps every second pixel among channels of zeros."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.stride = 1 if width_in == width else 2
        self.conv1 = nn.Conv2d(width_in, width, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        beside = (y.shape[1] - x.shape[1]) // 2
        return F.relu(y + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, beside, beside)))


class ResNet(nn.Module):
    """Three stages of blocks, of 16, 32 and 64 channels; the names are those of the published file."""

    def __init__(self, blocks: int = 9, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for stage, (width_in, width) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            chain = [Block(width_in if i == 0 else width, width) for i in range(blocks)]
            self.add_module(f"layer{stage}", nn.Sequential(*chain))
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W), normalised, to features (B, 64)."""
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(1, 4):
            x = self.get_submodule(f"layer{stage}")(x)
        return x.mean((2, 3))


def build(stored: Any) -> ResNet:
    """Make the network of a published file's content.

    Raises:
        WeightsError: If its tensors are not those of a ResNet-56 for CIFAR-10.
    """
    held = stored.get("state_dict") if isinstance(stored, dict) else None
    state = {key.removeprefix("module."): value for key, value in held.items()} if isinstance(held, dict) else {}
    with torch.device("meta"):
        net = ResNet()
    lacking = net.state_dict().keys() - state.keys()
    state |= {key: torch.tensor(0) for key in lacking if key.endswith("num_batches_tracked")}
    return holding(net, state, "a ResNet-56 for CIFAR-10", f"Bring the file {NAME}.")


class ResNetFeatures:
    """The spatial mean before the last layer, d = 64."""

    def __init__(self, net: ResNet, weights_hash: str, shape: ImageShape):
        check_shape("resnet", shape, SHAPE)
        self.net, self.weights_hash, self.shape = net, weights_hash, shape
        self.name, self.dimension, self.classes = "resnet", net.linear.in_features, net.linear.out_features

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, 3, 32, 32) to float32 features (B, 64)."""
        check_images(self.name, images, self.shape)
        self.net.to(images.device)
        with exact_float32(images.device):
            return self.net(imagenet_scaled(images))

    def logits(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, 3, 32, 32) to float32 class logits (B, 10)."""
        features = self(images)
        with exact_float32(images.device):
            return self.net.linear(features)

    def describe(self) -> dict[str, Any]:
        """Describe how an image becomes features; part of a score's protocol."""
        return {
            "layer": "spatial mean before the last layer",
            "resize": "none",
            "scaling": "(x / 255 - imagenet mean) / imagenet deviation",
            "dtype": "float32",
        }


def resnet(shape: ImageShape, weights: str = NAME) -> ResNetFeatures:
    """Compare features of a CIFAR-10 classifier, ResNet-56, by a weights file you bring: 3x32x32 images, d = 64.

    Arguments:
        shape: (C, H, W) of the images, (3, 32, 32).
        weights: Path of the published file, or its name in the data root.

    Raises:
        WeightsError: If the file is missing or another one.
    """
    stored, found = read_file(Path(weights), f"{NAME} of pytorch_resnet_cifar10", HASH)
    return ResNetFeatures(build(stored), found, shape)
