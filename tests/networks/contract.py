"""A small configuration of every network of the room, and how to wake up layers that start at zero."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from sfumato.core.find import find

# options: of the constructor, for images of 16 px. zero: F = 0 at the start. any_size: no rule about sizes.
SMALL: dict[str, dict[str, Any]] = {
    "unet": {"options": {"width": 16, "attention": (0, 1), "bridge": True, "head_width": 8, "embedding": 32}},
    "ddpm": {"options": {"width": 32, "mult": (1, 2), "blocks": 1, "attention": (8,)}},
    "adm": {"options": {"width": 32, "mult": (1, 2), "blocks": 1, "attention": (8,), "head_width": 16}},
    "songunet": {
        "options": {"width": 16, "mult": (1, 2), "blocks": 1, "attention": (8,), "fourier": True}
        | {"fourier_scale": 1.0, "taps": (1, 3, 3, 1), "image_path": True},
        "almost": 1e-3,
    },
    "cifar_unet": {
        "options": {"widths": (8, 16, 16), "middle": (32, 16), "up": (16, 8), "plain": (3,), "embedding": 32},
        "zero": False,
    },
    "convnet": {"options": {"widths": (8, 16, 32), "embedding": 32}},
    "condnorm_unet": {
        "options": {"width": 16, "depths": (1, 1), "attention": (8, 4), "heads": (2, 2, 2), "position": True},
        "zero": False,
    },
    "dit": {"options": {"width": 32, "depth": 2, "heads": 4}},
    "jit": {"options": {"width": 32, "depth": 3, "heads": 4, "patch": 2, "bottleneck": 12}},
    "edm2": {"options": {"width": 16, "mult": (1, 2), "blocks": 1, "attention": (8,), "head_width": 16}},
}
NOT_DENOISERS = {"adm_classifier", "autoencoder", "dcgan", "lsgm", "sngan"}


def make(name: str, channels: int = 3, classes: int = 0, size: int = 16, **options: Any) -> nn.Module:
    """Build the small configuration of a network with seeded initial weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = SMALL[name]["options"] | options
        return find("network", name)(channels=channels, out_channels=channels, classes=classes, size=size, **options)


def awake(network: nn.Module, seed: int = 0) -> nn.Module:
    """Fill all weights, those that start at zero too, with seeded numbers of unit gain; return it in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if p.ndim >= 2:
                bound = math.sqrt(3 / p[0].numel())
                p.uniform_(-bound, bound, generator=generator)
            else:
                p.uniform_(-0.1, 0.1, generator=generator)
                if name.endswith("weight"):
                    p.add_(1)
    return network.eval()


def images(batch: int, channels: int = 3, size: int = 16, seed: int = 1) -> torch.Tensor:
    """Return seeded normal images."""
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(seed))
