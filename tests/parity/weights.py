"""Weights that need no file: every tensor of a state dict from its name.

For a tensor `name` with n elements, r = Philox(key = crc32(name) + seed * 2^32) gives n integers of 64 bits,
u = floor(r / 2^11) / 2^53 lies in [0, 1), v = 2u - 1. A kernel or matrix is gain * sqrt(3 / fan_in) * v (variance
gain^2 / fan_in), a gain vector 1 + 0.2 v, a bias 0.1 v; no layer is left at zero, so no layer is left untested.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch


def raw(name: str, count: int, seed: int) -> np.ndarray:
    """Return `count` uint64 that belong to a tensor's name."""
    return np.random.Philox(key=zlib.crc32(name.encode()) + (seed << 32)).random_raw(count)


def weight(name: str, shape: Sequence[int], seed: int, gain: float) -> torch.Tensor:
    """Return the tensor `name` of a state dict, float32."""
    count = math.prod(shape)
    u = (np.atleast_1d(raw(name, count, seed)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    v = 2 * u - 1
    if name.endswith("num_batches_tracked"):
        return torch.zeros(tuple(shape), dtype=torch.int64)
    if name.endswith("running_var"):
        value = 0.5 + u
    elif name.endswith("running_mean"):
        value = 0.1 * v
    elif name.endswith("freqs"):
        value = 16 * v
    elif len(shape) >= 2:
        value = gain * math.sqrt(3 / math.prod(shape[1:])) * v
    elif name.endswith("weight"):
        value = 1 + 0.2 * v
    else:
        value = 0.1 * v
    return torch.from_numpy(value.reshape(tuple(shape)).astype(np.float32))


def state_dict(
    shapes: Mapping[str, Sequence[int]], seed: int, gain: float, kept: Sequence[str] = ()
) -> dict[str, torch.Tensor]:
    """Return a whole state dict; constants (`kept`) are zeros, for their readers to ignore or compute."""
    return {
        name: torch.zeros(tuple(shape)) if name in kept else weight(name, shape, seed, gain)
        for name, shape in shapes.items()
    }
