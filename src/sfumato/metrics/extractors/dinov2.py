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
from sfumato.metrics.extractors.inception import WeightsError
from sfumato.metrics.features import ExtractorShapeError, ImageShape, check_images, exact_float32, file_hash

SIZE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
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
    want = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    wrong = sorted(
        key for key in want.keys() | state.keys() if key not in state or want.get(key) != tuple(state[key].shape)
    )
    if wrong:
        raise WeightsError(
            f"{len(wrong)} tensors do not fit a DINOv2 network of width {width} and depth {depth}, "
            f"first '{wrong[0]}'. Only the published networks without registers are taken."
        )
    net.load_state_dict(state, assign=True)
    return net.eval().requires_grad_(False).float()


class DinoFeatures:
    """The normed class token of a DINOv2 network."""

    def __init__(self, net: DinoNet, weights_hash: str, shape: ImageShape):
        if shape[0] not in (1, 3):
            raise ExtractorShapeError(f"Extractor 'dinov2' takes images of 1 or 3 channels, got {shape[0]}.")
        self.net, self.weights_hash, self.shape = net, weights_hash, shape
        self.dimension = net.norm.weight.numel()
        self.name = f"dinov2-{KINDS.get(self.dimension, self.dimension)}"

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, C, H, W) to float32 features (B, d)."""
        check_images(self.name, images, self.shape)
        device = images.device
        colour = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
        wide = [np.array(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for image in colour]
        x = torch.from_numpy(np.stack(wide)).to(device).permute(0, 3, 1, 2).float() / 255
        mean, deviation = (torch.tensor(value, device=device)[:, None, None] for value in (MEAN, DEVIATION))
        self.net.to(device)
        with exact_float32(device):
            return self.net((x - mean) / deviation)

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
        weights: Path of the published checkpoint.

    Raises:
        WeightsError: If the file is missing or holds another network.
    """
    path = Path(weights)
    if not path.is_file():
        raise WeightsError(
            f"There is no weights file {path}. Bring the published DINOv2 checkpoint and name it by "
            "--weights FILE (in Python: the extractor's option weights='FILE')."
        )
    return DinoFeatures(build(torch.load(path, map_location="cpu", weights_only=True)), file_hash(path), shape)
