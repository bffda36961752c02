"""The first narrow waist: everything trained meets everything sampled at `Denoiser`.

A denoiser estimates the clean image, ``D(x; level, label) = E[x0 | x]``. Networks, exact posteriors, guided models,
distilled models and imported checkpoints are all denoisers; guidance is a denoiser that wraps denoisers.

`Preconditioned` turns a raw network into one. With the target's coefficients (a, b) (see `core.target`)

    F(x)  = network(c_in x, c_noise, label)
    D(x)  = c_skip x + c_out F(x)

where only c_in and c_noise are choices of the network; c_skip and c_out follow from the target.

A label is an int64 per image. `NULL` (-1) means "no class" for that image, `None` means it for all of them; class 0
is a class like any other. What is told beside a class, numbers or an image, makes it a `core.condition.Condition`.

References:
    Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. 2022, eq. (7).
    https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sfumato.core.condition import NULL as NULL
from sfumato.core.condition import Label
from sfumato.core.level import Level, index_in, like, nearest_in
from sfumato.core.noise import Noise
from sfumato.core.target import Target


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """A denoiser's answer.

    Attributes:
        x0: Estimate of the clean image, the shape of x.
        v: The raw variance channel of a network that learns its variance, or None. For a learned range it is the
            fraction in [0, 1] (not clamped) that `Kernel.log_var` interpolates with; only a kernel can interpret it.
        conditional, unconditional: The estimates of x0 with and without the label, where guidance made both; else None.
    """

    x0: Tensor
    v: Tensor | None = None
    conditional: Tensor | None = None
    unconditional: Tensor | None = None


@runtime_checkable
class Denoiser(Protocol):
    """Estimate x0 from x = alpha x0 + sigma n.

    Arguments:
        x: Noisy images, shape (B, C, H, W) (or (B, d) for points), float.
        level: Shape () for all images or (B,), sigma > 0.
        label: int64, shape (B,), NULL for "no class", or a `Condition`; None for no class at all.
    """

    def __call__(self, x: Tensor, level: Level, label: Label | None = None) -> Prediction: ...


class State(NamedTuple):
    """One state of a sampler: the image, its level, and the x0 estimate that led to it."""

    x: Tensor
    level: Level
    x0: Tensor


class Sampler(Protocol):
    """Walk a grid from noisy to clean, yielding the state after every step.

    Arguments:
        denoiser: Called once or more per step, at levels on or between those of the grid.
        x: Start, at level grid[0], shape (B, C, H, W).
        grid: Levels from noisy to clean, shape (N + 1,); the last is the clean level unless a sampler says otherwise.
        noise: step index -> unit normal noise of x's shape; asked for only by steps that add noise, so that a
            deterministic sampler needs none.
        label: int64 (B,), a `Condition`, or None.
    """

    def __call__(
        self, denoiser: Denoiser, x: Tensor, grid: Level, *, noise: Noise | None = None, label: Label | None = None
    ) -> Iterator[State]: ...


def clipped(x0: Tensor, clip: bool | float) -> Tensor:
    """Clip an estimate of x0 to [-1, 1] (True) or [-clip, clip]; False leaves it."""
    bound = float(clip)
    return x0.clamp(-bound, bound) if bound else x0


def skip_and_out(target: Target, level: Level) -> tuple[Tensor, Tensor]:
    """Return (c_skip, c_out) of ``D(x) = c_skip x + c_out F`` for a target at a level."""
    a, b = target(level)
    d = a * level.sigma - b * level.alpha
    return -b / d, level.sigma / d


def unit_variance(sigma_data: float) -> Callable[[Level], Tensor]:
    """Return EDM's c_in, which gives the network's input unit variance: 1 / hypot(sigma, alpha sigma_data)."""
    return lambda level: 1 / torch.hypot(level.sigma, sigma_data * level.alpha)


def unit_circle() -> Callable[[Level], Tensor]:
    """Return the c_in that brings any level onto alpha^2 + sigma^2 = 1; 1 on a variance-preserving schedule."""
    return lambda level: 1 / torch.hypot(level.alpha, level.sigma)


def unit_line() -> Callable[[Level], Tensor]:
    """Return the c_in that brings any level onto alpha + sigma = 1; 1 on the straight line of flow matching."""
    return lambda level: 1 / (level.alpha + level.sigma)


def ask(
    network: nn.Module,
    x: Tensor,
    level: Level,
    *rest: Label | None,
    c_noise: Callable[[Level], Tensor],
    c_in: Callable[[Level], Tensor] | None = None,
    table: Level | None = None,
    autocast: torch.dtype | None = None,
    two_levels: bool = False,
) -> Tensor:
    """Call a network at a level: scale its input, tell it the level, compute in `autocast`, answer in x's dtype.

    Arguments:
        network: Called as network(c_in x, c_noise, *rest).
        x: Noisy images, shape (B, C, H, W).
        level: Shape () or (B,).
        rest: What else the network is told: the label, then augmentation labels if it takes them.
        c_noise, c_in, table, autocast: The same as in `Preconditioned`.
        two_levels: Whether the network is told c_noise of `level.to` too, by the name `to`.

    Raises:
        ValueError: If the level is not in the table.
    """
    if table is not None:
        index_in(table, level)  # refuses a level the network was not made for

    def told(of: Level) -> Tensor:
        return c_noise(of).to(x.dtype).to(x.device, non_blocking=True).expand(len(x))

    also = {"to": told(level.to)} if two_levels and level.to is not None else {}
    inputs = x if c_in is None else like(c_in(level), x) * x
    with torch.autocast(x.device.type, autocast, enabled=autocast is not None):
        out: Tensor = network(inputs, told(level), *rest, **also)
    return out.to(x.dtype)


class Preconditioned(nn.Module):
    """Make a denoiser of a network and a target.

    Arguments:
        network: ``network(x, c_noise, label) -> F``, with F of C channels, or 2 C if the variance is learned.
        target: The coefficients of the ideal output.
        c_in: level -> scale of the network's input, so that D(kx; k alpha, k sigma) = D(x; alpha, sigma):
            `unit_variance`, `unit_circle` or `unit_line`; None for 1, if every level has the scale of training.
        c_noise: level -> the number that tells the network its noise level.
        table: The levels a discrete network knows, (1, 0) first, shape (T + 1,); None if it is continuous.
        variance: "none"; "range" (second half of the output is 2 v - 1, iDDPM eq. 15) or "diagonal" (it is ln var).
        autocast: dtype in which the network computes, e.g. torch.bfloat16; None for the input's own.
        two_levels: Whether the network is told c_noise of the level where the step ends too, ``network(..., to=...)``,
            where the level says it (`Level.to`).
    """

    def __init__(
        self,
        network: nn.Module,
        target: Target,
        *,
        c_noise: Callable[[Level], Tensor],
        c_in: Callable[[Level], Tensor] | None = None,
        table: Level | None = None,
        variance: str = "none",
        autocast: torch.dtype | None = None,
        two_levels: bool = False,
    ) -> None:
        super().__init__()
        if variance not in ("none", "range", "diagonal"):
            raise ValueError(f"variance must be 'none', 'range' or 'diagonal'; got {variance!r}.")
        self.network = network
        self.target = target
        self.c_in = c_in
        self.c_noise = c_noise
        self.table = table
        self.variance = variance
        self.autocast = autocast
        self.two_levels = two_levels

    def snap(self, level: Level) -> Level:
        """Return the nearest noisy level the network knows (in angle); clean stays clean, continuous ones keep all."""
        if self.table is None:
            return level
        return nearest_in(self.table, level)

    def raw(
        self, x: Tensor, level: Level, label: Label | None = None, augment: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the raw output (F, v) at noisy images, both in x's dtype; v is None unless variance is learned.

        Arguments:
            x: Noisy images, shape (B, C, H, W).
            level: Shape () or (B,).
            label: int64 (B,), a `Condition`, or None.
            augment: What was done to the images, (B, 9), for a network that takes such labels; None for nothing.
        """
        rest: tuple[Label | None, ...] = (label,) if augment is None else (label, augment)
        out = ask(
            self.network,
            x,
            level,
            *rest,
            c_noise=self.c_noise,
            c_in=self.c_in,
            table=self.table,
            autocast=self.autocast,
            two_levels=self.two_levels,
        )
        if self.variance == "none":
            return out, None
        f, v = out.chunk(2, dim=1)
        return f, (v + 1) / 2 if self.variance == "range" else v

    def denoised(self, f: Tensor, x: Tensor, level: Level) -> Tensor:
        """Return D(x) = c_skip x + c_out F for a raw output F, all of shape (B, C, H, W)."""
        c_skip, c_out = skip_and_out(self.target, level)
        return like(c_skip, x) * x + like(c_out, x) * f

    def forward(self, x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        f, v = self.raw(x, level, label)
        return Prediction(self.denoised(f, x, level), v)


class StoppedError(Exception):
    """Say that work was told to stop; the message says why."""


def stoppable(denoiser: Denoiser, stop: Callable[[], str | None]) -> Denoiser:
    """Return a denoiser that asks before every call whether to go on: also inside a step that takes many calls.

    Arguments:
        denoiser: The denoiser that is asked if nothing tells it to stop.
        stop: Returns why to stop, or None to go on; a reason raises a StoppedError.
    """

    def ask(x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        if (reason := stop()) is not None:
            raise StoppedError(reason)
        return denoiser(x, level, label)

    return ask


class Blank:
    """Stand in for a denoiser: it sees grey everywhere and remembers the levels it was asked at, of each image.

    Arguments:
        variance: Learned variance of the recipe, as in `Recipe`.
    """

    def __init__(self, variance: str) -> None:
        self.learned = variance != "none"
        self.levels: list[Level] = []

    def __call__(self, x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        self.levels += [level] * len(x)
        return Prediction(0 * x, 0 * x if self.learned else None)


class Counted:
    """Wrap a denoiser and count what it is asked.

    Attributes:
        nfe: Calls. For one batch of an unguided sampler, the function evaluations per image.
        rows: Images over all calls. Guidance may ask for several images in one call, so rows over images made is the
            honest number of function evaluations per image.
        vjps: Vector-Jacobian products: how often a gradient passed back through one of the calls.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.nfe = self.rows = self.vjps = 0

    def __call__(self, x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        self.nfe += 1
        self.rows += len(x)
        prediction = self.denoiser(x, level, label)
        if prediction.x0.requires_grad:
            prediction.x0.register_hook(self._passed_back)
        return prediction

    def _passed_back(self, gradient: Tensor) -> None:
        self.vjps += 1
