"""Heun: EDM's sampler, a second-order step with optional churn, in any gauge.

In a gauge's coordinates (see `core.gauge`), with d(y, u) = dy/du and h = u_s - u_t,

    d1  = d(y_t, u_t)
    y'  = y_t + m h d1,    d2 = d(y', u_t + m h)
    y_s = y_t + h ((1 - 1 / (2 m)) d1 + d2 / (2 m))

where m, the place of the second slope, is 1 for Heun's method, 1/2 for the midpoint method and 2/3 for Ralston's: all
of second order. The step to the clean level has no slope at its end and is an Euler step, so N steps cost 2 N - 1
calls of the denoiser.

References:
    Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. 2022, algorithms 2 and 3.
    https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from torch import Tensor

from sfumato.core.bounds import Few, NoLimit, NotNegative, Positive, UpToOne
from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, State
from sfumato.core.gauge import Gauge, named
from sfumato.core.level import Level, like
from sfumato.core.noise import Noise
from sfumato.samplers._churn import Churn

ORDER = 2


def heun(
    denoiser: Denoiser,
    x: Tensor,
    grid: Level,
    *,
    noise: Noise | None = None,
    label: Label | None = None,
    gauge: Literal["ve", "flow", "vp"] | Gauge = "ve",
    midpoint: UpToOne = 1.0,
    churn: NotNegative = 0.0,
    s_min: NoLimit = 0.0,
    s_max: NoLimit = float("inf"),
    s_noise: Few = 1.0,
    nsr_max: Positive | None = None,
    snap: Callable[[Level], Level] | None = None,
) -> Iterator[State]:
    """Correct an Euler step with the slope at its end (EDM's sampler); second order, 2 N - 1 calls.

    Arguments:
        denoiser: The model, any denoiser.
        x: Start at grid[0], shape (B, ...).
        grid: Levels from noisy to clean, shape (N + 1,).
        noise: step -> unit normal noise of x's shape; asked for only where churn adds some.
        label: Class of each image, int64 (B,); None for none.
        gauge: Coordinates of the step: "ve" is EDM; "flow" and "vp" can start at alpha = 0.
        midpoint: Where the second slope is taken, as a share of the step in (0, 1].
        churn: Total amount of added noise; EDM uses 0 to 80 for N = 18 to 256.
        s_min: No churn below this nsr.
        s_max: No churn above this nsr.
        s_noise: Standard deviation of the added noise, slightly above 1 to make up for lost detail.
        nsr_max: Churn never exceeds this nsr; None for that of grid[0].
        snap: Level -> nearest level that the model knows, for churn; None for a model that knows all.

    Yields:
        The state after every step; its x0 is the estimate at the step's start.

    Raises:
        ValueError: If `midpoint` is outside (0, 1], or the gauge cannot hold the grid.
    """
    if not 0 < midpoint <= 1:
        raise ValueError(f"midpoint is a share of the step in (0, 1]; got {midpoint}.")
    path = named(gauge)
    limit = float(grid.nsr[0]) if nsr_max is None else nsr_max
    churned = Churn(churn, s_min, s_max, s_noise, limit, len(grid) - 1, snap)
    late = 1 / (2 * midpoint)
    for i in range(len(grid) - 1):
        x, t = churned(x, grid[i], noise, i)
        s = grid[i + 1]
        x0 = denoiser(x, t, label).x0
        y, u = path.enter(x, t)
        h = path.where(s)[1] - u
        d1 = path.velocity(y, u, x0)
        if s.sigma > 0:
            there = u + midpoint * h
            level = s if midpoint == 1 else path.at(there)
            trial = y + like(midpoint * h, y) * d1
            x0_there = denoiser(path.leave(trial, level), level, label).x0
            d2 = path.velocity(trial, there, x0_there)
            y = y + like(h, y) * ((1 - late) * d1 + late * d2)
        else:
            y = y + like(h, y) * d1
        x = path.leave(y, s)
        yield State(x, s, x0)
