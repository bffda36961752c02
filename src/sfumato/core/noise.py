"""Noise is addressed, not streamed.

Every random number of sampling and training is a pure function of an address (seed, purpose, id, step, element): the
image with id i gets the same noise whatever the batch size, its order, the number of devices, or what ran before. So
resuming needs no generator state, and changing the batch does not change the pictures.

The function is Philox4x32-10 (Salmon et al. 2011), a counter-based generator, vectorised over the batch with int64
arithmetic, so that CPU and accelerator agree bit for bit in the integers:

    key     = (seed low, seed high xor crc32(purpose))
    counter = (block, step, id low, id high)          one block gives four 32-bit words
    uniform = (word + 1/2) / 2^32
    normal  = Box-Muller of a pair of uniforms, in float64 (float32 where a device has no float64)

References:
    Salmon, Moraes, Dror, Shaw. Parallel Random Numbers: As Easy as 1, 2, 3. 2011. https://doi.org/10.1145/2063384.2063405
    Box, Muller. A Note on the Generation of Random Normal Deviates. 1958. https://doi.org/10.1214/aoms/1177706645
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85

Ids = Tensor | Sequence[int]
Noise = Callable[[int], Tensor]  # step -> unit normal noise of the images' shape, such as `SamplingNoise`


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Apply Philox4x32-10 to counters.

    Arguments:
        counter: Four int64 tensors of broadcastable shape, each in [0, 2^32).
        key: Two words in [0, 2^32).

    Returns:
        Four int64 tensors, each in [0, 2^32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # int64 products wrap modulo 2^64, which leaves both 32-bit halves right
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (p1 >> 32 & _MASK) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32 & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


def words(
    ids: Ids, count: int, *, seed: int = 0, purpose: str, step: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """Return addressed 32-bit words.

    Arguments:
        ids: Shape (B,), one 64-bit id per image (a sampling seed, or a global sample position in training).
        count: Words per image, at most 2^34.
        seed: The run's seed, 64 bits.
        purpose: What the numbers are for; different purposes are independent streams.
        step: Sampler step or training purpose's own counter, in [0, 2^32).
        device: Device of the numbers.

    Returns:
        int64 in [0, 2^32), shape (B, count).

    Raises:
        ValueError: If `step` is out of range.
    """
    if not 0 <= step <= _MASK:
        raise ValueError(f"A noise step is a 32-bit counter in [0, 2^32); got {step}.")
    image = torch.as_tensor(ids, dtype=torch.int64).to(device)
    blocks = torch.arange(math.ceil(count / 4), device=image.device).unsqueeze(0)
    low, high = (image & _MASK).unsqueeze(1), (image >> 32 & _MASK).unsqueeze(1)
    c0, c1, c2, c3 = torch.broadcast_tensors(blocks, torch.full_like(blocks, step), low, high)
    key = (seed & _MASK, (seed >> 32 & _MASK) ^ zlib.crc32(purpose.encode()))
    return torch.stack(philox((c0, c1, c2, c3), key), dim=2).flatten(1)[:, :count]


def _unit(word: Tensor) -> Tensor:
    """Map 32-bit words into the open interval (0, 1)."""
    dtype = torch.float32 if word.device.type == "mps" else torch.float64
    return (word.to(dtype) + 0.5) * 2.0**-32


def uniform(
    ids: Ids,
    shape: Sequence[int] = (),
    *,
    seed: int = 0,
    purpose: str,
    step: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Return addressed uniform numbers in (0, 1), shape (B, *shape). Arguments as in `words`.

    >>> a = uniform([7, 8], seed=1, purpose="doc")
    >>> bool((a[1:] == uniform([8], seed=1, purpose="doc")).all())
    True
    """
    unit = _unit(words(ids, math.prod(shape), seed=seed, purpose=purpose, step=step, device=device))
    return unit.to(dtype).reshape(-1, *shape)


def normal(
    ids: Ids,
    shape: Sequence[int],
    *,
    seed: int = 0,
    purpose: str,
    step: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return addressed unit normal noise, shape (B, *shape). Arguments as in `words`."""
    count = math.prod(shape)
    pairs = _unit(words(ids, 2 * math.ceil(count / 2), seed=seed, purpose=purpose, step=step, device=device))
    radius = (-2 * pairs[:, 0::2].log()).sqrt()
    angle = 2 * math.pi * pairs[:, 1::2]
    values = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=2).flatten(1)[:, :count]
    return values.to(dtype).reshape(-1, *shape)


def stratify(u: Tensor, rank: Tensor | int, count: int) -> Tensor:
    """Put each uniform number into its own stratum of (0, 1): ``(rank + u) / count``.

    A batch whose images hold the ranks 0..count-1 then visits every quantile of a draw evenly: each number is still
    uniform for a uniformly chosen rank, and the variance of the batch mean falls.

    Arguments:
        u: Uniform in (0, 1), shape (B,).
        rank: Position of each image in its (global) batch, int64 in [0, count), shape (B,) or one number.
        count: Number of strata, usually the global batch size.

    Returns:
        Uniform numbers in (rank / count, (rank + 1) / count), shape (B,).

    Raises:
        ValueError: If a rank is outside [0, count).

    References:
        Kingma, Salimans, Poole, Ho. Variational Diffusion Models. 2021, appendix I.1. https://arxiv.org/abs/2107.00630
    """
    rank = torch.as_tensor(rank, device=u.device)
    outside = rank[(rank < 0) | (rank >= count)]
    if outside.numel():
        raise ValueError(f"Ranks lie in [0, {count}); got {outside.flatten()[:4].tolist()}.")
    return (rank + u) / count


def drawn(noise: Noise | None, step: int) -> Tensor:
    """Return the noise of a step of a sampler that adds some there.

    Arguments:
        noise: What the sampler was given; None if it was given none.
        step: Number of the step.

    Raises:
        ValueError: If there is no noise to draw from.
    """
    if noise is None:
        raise ValueError(
            f"The sampler adds fresh noise at step {step}, and noise is None. Give noise=SamplingNoise(seeds, "
            "image_shape), or set the option that adds noise (eta, churn) to 0, or choose a deterministic sampler."
        )
    return noise(step)


class SamplingNoise:
    """Give a sampler its noise: ``noise(step)`` is unit normal, addressed by each image's own seed.

    Arguments:
        seeds: One seed per image, shape (B,).
        shape: Shape of one image, e.g. (C, H, W).
        device: Where the images are.
        dtype: Floating-point type of the images.
    """

    def __init__(
        self,
        seeds: Ids,
        shape: Sequence[int],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.seeds, self.shape, self.device, self.dtype = seeds, tuple(shape), device, dtype

    def start(self) -> Tensor:
        """Return the unit normal noise that the walk starts from."""
        return normal(self.seeds, self.shape, purpose="start", device=self.device, dtype=self.dtype)

    def __call__(self, step: int) -> Tensor:
        return normal(self.seeds, self.shape, purpose="step", step=step, device=self.device, dtype=self.dtype)
