"""Latents on the way: encode images to any level of a source's grid and decode them from there.

A grid runs from noisy (index 0) to clean (index N); t counts steps from clean, t = N - k at index k. A latent is an
x at grid index k, by

    adding noise      x_k = alpha_k x0 + sigma_k n: the stochastic encoder, one n per seed
    walking back      a deterministic sampler run from clean to noisy, such as `samplers.ddim.encode`

and `decode` samples the rest of the way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, State
from sfumato.core.images import to_float
from sfumato.core.level import Level
from sfumato.report.strip import ratio
from sfumato.sources import Diffusion, check_labels


class Encode(Protocol):
    """Walk from clean images to grid[0], deterministically; `samplers.ddim.encode` is one."""

    def __call__(
        self, denoiser: Denoiser, x: Tensor, grid: Level, *, label: Label | None = None
    ) -> Iterator[State]: ...


def encode_at(
    source: Diffusion,
    images: Tensor,
    k: int,
    seeds: Sequence[int],
    labels: Tensor | None = None,
    encode: Encode | None = None,
) -> Tensor:
    """Return latents of images at grid index k.

    Arguments:
        source: A diffusion model with its grid.
        images: Clean, uint8, shape (B, C, H, W).
        k: Grid index in [0, N]; N is clean.
        seeds: Seeds of the noise, one per image.
        labels: One class per image, int64 (B,), or None for no class.
        encode: A deterministic walk; None for adding noise.

    Returns:
        Float, shape (B, *source.space.shape): in the space that is walked.

    Raises:
        ValueError: If k is outside the grid.
    """
    grid = rest(source, k)
    with torch.no_grad():
        x0 = source.space.encode(to_float(images).to(source.device))
    if len(grid) == 1:
        return x0
    if encode is None:
        return grid[0].noisy(x0, source.noise(seeds).start())
    with torch.no_grad():
        states = deque(encode(source.denoiser, x0, grid, label=_label(source, labels, len(x0))), maxlen=1)
    return states[0].x if states else x0


def decode(source: Diffusion, x: Tensor, k: int, seeds: Sequence[int], labels: Tensor | None = None) -> Tensor:
    """Sample the rest of the way from latents at grid index k; returns float images.

    Arguments:
        source: A diffusion model with its sampler and grid.
        x: Latents, shape (B, C, H, W).
        k: Grid index in [0, N].
        seeds: Seeds of the steps' noise, one per image; a deterministic sampler does not use them.
        labels: One class per image, int64 (B,), or None for no class.
    """
    grid, label = rest(source, k), _label(source, labels, len(x))
    with torch.no_grad():
        if len(grid) > 1:
            walk = source.sampler(source.denoiser, x, grid, noise=source.noise(seeds), label=label)
            x = deque(walk, maxlen=1)[0].x
        return source.space.decode(x)


def rest(source: Diffusion, k: int) -> Level:
    """Return the levels of a source's grid from index k on, shape (N - k + 1,).

    Raises:
        ValueError: If k is outside the grid.
    """
    if not 0 <= k < len(source.grid):
        raise ValueError(f"A latent lives at a grid index in [0, {len(source.grid) - 1}] (0 is the noisiest); got {k}.")
    return source.grid[k:]


def _label(source: Diffusion, labels: Tensor | None, count: int) -> Tensor | None:
    checked = check_labels(labels, count, source.classes)
    return None if checked is None else checked.to(source.device)


def evenly(source: Diffusion, count: int) -> list[int]:
    """Return `count` grid indices from the noisiest to the clean one."""
    steps = len(source.grid) - 1
    return sorted({round(steps * i / (count - 1)) for i in range(count)})


def named(source: Diffusion, at: Sequence[int]) -> list[str]:
    """Return row labels of grid indices: steps from clean, and sigma / alpha."""
    steps = len(source.grid) - 1
    return [f"t = {steps - k}\nσ/α {ratio(source.grid[k])}" for k in at]
