"""Features of DINOv2 by weights that the user brings; their distance, FD[dinov2-l], is not comparable with FID.

Images of any size are resized to 224x224 by Pillow's bicubic filter on uint8 (shrinking with antialias), scaled to
[0, 1] and normalised by ImageNet's mean and deviation; a grey image is repeated in three channels.  The checkpoint is
the published file (`dinov2_vitl14_pretrain.pth`, or s, b), read without executing anything in it; the sha256 of the
file goes into the protocol, so scores with different files are never compared.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sfumato.metrics.dinov2_net import DinoNet
from sfumato.metrics.extractors._brought import WeightsError, holding, imagenet_scaled, read_file
from sfumato.metrics.features import ImageShape, check_colours, check_images, exact_float32

SIZE = 224
KINDS = {384: "s", 768: "b", 1024: "l"}


def build(state: Any) -> DinoNet:
    """Make the network that a state dict belongs to.

    Raises:
        WeightsError: If the tensors are not those of a DINOv2 network without registers.
    """
    if not isinstance(state, dict) or "pos_embed" not in state:
        raise WeightsError("The weights file does not hold a DINOv2 network: there is no tensor 'pos_embed'.")
    width = state["pos_embed"].shape[-1]
    depth = 1 + max((int(m[1]) for key in state if (m := re.match(r"blocks\.(\d+)\.", key))), default=-1)
    grid = int((state["pos_embed"].shape[1] - 1) ** 0.5)
    with torch.device("meta"):
        net = DinoNet(width, depth, grid)
    what = f"a DINOv2 network of width {width} and depth {depth}"
    return holding(net, state, what, "Only the published networks without registers are taken.")


class DinoFeatures:
    """The normed class token of a DINOv2 network."""

    def __init__(self, net: DinoNet, weights_hash: str, shape: ImageShape):
        check_colours("dinov2", shape)
        self.net, self.weights_hash, self.shape = net, weights_hash, shape
        self.dimension = net.norm.weight.numel()
        self.name = f"dinov2-{KINDS.get(self.dimension, self.dimension)}"

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, C, H, W) to float32 features (B, d)."""
        check_images(self.name, images, self.shape)
        device = images.device
        colour = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
        wide = [np.array(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for image in colour]
        x = imagenet_scaled(torch.from_numpy(np.stack(wide)).to(device).permute(0, 3, 1, 2))
        self.net.to(device)
        with exact_float32(device):
            return self.net(x)

    def describe(self) -> dict[str, Any]:
        """Describe how an image becomes features; part of a score's protocol."""
        return {
            "layer": "class token, normed",
            "resize": f"pillow bicubic uint8 {SIZE}",
            "dtype": "float32",
            "scaling": "(x / 255 - imagenet mean) / imagenet deviation",
            "grey": "repeated in 3 channels",
        }


def dinov2(shape: ImageShape, weights: str = "dinov2_vitl14_pretrain.pth") -> DinoFeatures:
    """Compare features of DINOv2 (class token of ViT-S/B/L 14) by a weights file you bring: d = 384, 768 or 1024.

    Arguments:
        shape: (C, H, W) of the images, C = 1 or 3.
        weights: Path of the published checkpoint, or its name in the data root.

    Raises:
        WeightsError: If the file is missing or holds another network.
    """
    state, found = read_file(Path(weights), "the published DINOv2 checkpoint")
    return DinoFeatures(build(state), found, shape)
