"""What objectives of two networks share: the posterior's noise, the weight of a latent's cost, a network held fixed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sfumato.core import noise
from sfumato.core.level import Level


def posterior_noise(mean: Tensor, positions: Tensor, seed: int) -> Tensor:
    """Return the noise by which each sample's latent is drawn from its posterior, the shape of `mean`."""
    return noise.normal(positions, mean.shape[1:], seed=seed, purpose="posterior", device=mean.device, dtype=mean.dtype)


def weight_of(kl: float, warmup: int, positions: Tensor, x0: Tensor) -> Tensor:
    """Return the weight of what a latent costs at each position, shape (B,)."""
    share = (positions + 1).double().to(x0.device) / max(1, warmup)
    return (kl * share.clamp(max=1)).to(x0)


def clean(count: int) -> Level:
    """Return the level of so many images that no noise was added to."""
    return Level(torch.ones(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64))


@contextlib.contextmanager
def held(module: nn.Module) -> Iterator[None]:
    """Hold a module's weights fixed inside the block; gradients still flow through it."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
