"""The noise level: the one value by which discrete and continuous time are the same.

A noisy image is ``x = alpha * x0 + sigma * n`` with ``n ~ N(0, I)``. A *schedule* makes levels from a time t, a
*grid* is a batch of levels from noisy to clean whose last entry is (1, 0), a *draw* is the distribution of levels
that training visits, and a *sampler* walks a grid. The time t itself survives only inside schedules and inside a
network's noise conditioning.

Derived quantities::

    nsr     = sigma / alpha                 the noise-to-signal ratio (EDM's sigma)
    log_snr = 2 (ln alpha - ln sigma)       lambda of Kingma et al. 2021

A design in sigma alone (alpha = 1) would be smaller, but flow matching starts at alpha = 0, where nsr is infinite.

Levels live on the CPU in float64. Only coefficients, cast to the image's dtype, travel to a device (see `like`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """Hold one level, or a batch of levels, as the pair (alpha, sigma).

    Arguments:
        alpha: Signal coefficient, float64 on the CPU, any shape, >= 0.
        sigma: Noise coefficient, same shape, >= 0.
        to: The level that a step from here ends at, same shape, for a denoiser that learned whole steps (MeanFlow);
            None for "here": every other denoiser ignores it.

    Raises:
        ValueError: If the shapes differ.

    >>> Level.of(1.0, [80.0, 2.0]).nsr.tolist()
    [80.0, 2.0]
    """

    alpha: Tensor
    sigma: Tensor
    to: Level | None = None

    def __post_init__(self) -> None:
        if self.alpha.shape != self.sigma.shape:
            raise ValueError(
                f"alpha and sigma of a Level must have one shape; got {tuple(self.alpha.shape)} and "
                f"{tuple(self.sigma.shape)}. Use Level.of(alpha, sigma) to broadcast."
            )
        for name in ("alpha", "sigma"):
            value = getattr(self, name)
            if value.dtype != torch.float64 or value.device.type != "cpu":
                object.__setattr__(self, name, value.detach().to("cpu", torch.float64))

    @classmethod
    def of(cls, alpha: object, sigma: object) -> Level:
        """Make a level from numbers, sequences or tensors, broadcast against each other."""
        pair = [torch.as_tensor(v, dtype=torch.float64, device="cpu") for v in (alpha, sigma)]
        a, s = torch.broadcast_tensors(*pair)
        return cls(a.clone(), s.clone())

    def towards(self, to: Level) -> Level:
        """Return the same level as the start of a step that ends at another."""
        return Level(self.alpha, self.sigma, to)

    def repeated(self, count: int) -> Level:
        """Return the levels of a batch that repeats this one's images, shape (count B,); a single level as it is."""
        if not self.shape:
            return self
        to = None if self.to is None else self.to.repeated(count)
        return Level(self.alpha.repeat(count), self.sigma.repeat(count), to)

    @classmethod
    def clean(cls) -> Level:
        """Return the level without noise, (1, 0)."""
        return cls.of(1.0, 0.0)

    @classmethod
    def stack(cls, levels: list[Level]) -> Level:
        """Stack levels of equal shape along a new first dimension."""
        return cls(torch.stack([v.alpha for v in levels]), torch.stack([v.sigma for v in levels]))

    @property
    def nsr(self) -> Tensor:
        """sigma / alpha; infinite where alpha = 0."""
        return self.sigma / self.alpha

    @property
    def log_snr(self) -> Tensor:
        """2 (ln alpha - ln sigma); +inf at the clean level, -inf where alpha = 0."""
        return 2 * (self.alpha.log() - self.sigma.log())

    @property
    def abar(self) -> Tensor:
        """The share of the signal in unit-variance x, alpha^2 / (alpha^2 + sigma^2): DDPM's alpha-bar at any scale."""
        return self.alpha**2 / (self.alpha**2 + self.sigma**2)

    def prior_bits(self, power: float = 1.0) -> Tensor:
        """Return KL(q(x_t | x0) || N(0, I)) in bits per dimension, after scaling x to the unit circle.

        Arguments:
            power: Mean square of x0, about 1 for unit-variance data and 0.25 for natural images in [-1, 1].

        References:
            Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, section 4: L_T.
        """
        return 0.5 * (self.abar * (power - 1) - torch.log1p(-self.abar)) / math.log(2)

    @property
    def shape(self) -> torch.Size:
        """The common shape of alpha and sigma."""
        return self.alpha.shape

    def __len__(self) -> int:
        return len(self.alpha)

    def __getitem__(self, index: object) -> Level:
        return Level(self.alpha[index], self.sigma[index])  # type: ignore[index]

    def __iter__(self) -> Iterator[Level]:
        return (self[i] for i in range(len(self)))

    def scaled(self, factor: Tensor | float) -> Level:
        """Return the level of ``factor * x``."""
        return Level(self.alpha * factor, self.sigma * factor)

    def noisy(self, x0: Tensor, n: Tensor) -> Tensor:
        """Return ``alpha * x0 + sigma * n``.

        Arguments:
            x0: Clean images, shape (B, ...), range [-1, 1].
            n: Unit normal noise of the same shape.

        Returns:
            Noisy images, the shape and dtype of `x0`. The level's shape is () or (B,).
        """
        return like(self.alpha, x0) * x0 + like(self.sigma, x0) * n


Schedule = Callable[[Tensor], Level]  # time t in [0, 1], 0 the cleanest -> level, of t's shape


def like(coefficient: Tensor, x: Tensor) -> Tensor:
    """Cast a CPU float64 coefficient to the dtype and device of `x`, ready to multiply it.

    Arguments:
        coefficient: Shape () or (B,).
        x: Tensor of images or other rows, shape (B, ...).

    Returns:
        Shape () or (B, 1, ..., 1). Copies to an accelerator do not block.
    """
    c = coefficient.to(x.dtype)
    if c.ndim:
        c = c.reshape(c.shape + (1,) * (x.ndim - c.ndim))
    if x.device.type == "cpu" or c.ndim == 0:
        return c  # torch multiplies a zero-dimensional CPU tensor into a device tensor without a copy
    return c.to(x.device, non_blocking=True)


def index_in(table: Level, level: Level) -> Tensor:
    """Return the index of each level in a table, which must contain it (nearest in angle, within 1e-6).

    Arguments:
        table: Shape (T + 1,), from clean to noisy.
        level: Shape () or (B,).

    Returns:
        int64, the shape of `level`.

    Raises:
        ValueError: If a level is not on the table; the message names the nearest entry.
    """
    angles = torch.atan2(table.sigma, table.alpha)
    want = torch.atan2(level.sigma, level.alpha)
    right = torch.searchsorted(angles, want.contiguous()).clamp(1, len(angles) - 1)
    index = torch.where(want - angles[right - 1] < angles[right] - want, right - 1, right)
    off = ((angles[index] - want).abs() > 1e-6 * want.abs().clamp(min=1e-3)).reshape(-1)
    if off.any():
        i = int(off.nonzero()[0])
        near = table[index.reshape(-1)[i]]
        raise ValueError(
            f"This denoiser knows {len(table) - 1} discrete levels and was asked for (alpha, sigma) = "
            f"({level.alpha.reshape(-1)[i]:.6g}, {level.sigma.reshape(-1)[i]:.6g}); the nearest is "
            f"({near.alpha:.6g}, {near.sigma:.6g}). Use a grid made of its own levels (full, respaced, trailing)."
        )
    return index


def nearest_in(table: Level, level: Level) -> Level:
    """Return the nearest noisy level of a table (in angle); a clean level stays clean.

    Arguments:
        table: Shape (T + 1,), from clean to noisy.
        level: Shape () or (B,).
    """
    angles = torch.atan2(table.sigma, table.alpha)[1:]
    want = torch.atan2(level.sigma, level.alpha)
    index = 1 + (angles - want.unsqueeze(-1)).abs().argmin(-1)
    return table[torch.where(level.sigma > 0, index, 0)]
