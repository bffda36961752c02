"""Euler: follow the tangent of the probability-flow ODE.

In a gauge's coordinates (see `core.gauge`) one step is ``y_s = y_t + (u_s - u_t) dy/du``. On the linear gauges ve and
flow it is exactly DDIM with eta = 0, on any grid, and identical between the two. With churn it is the stochastic Euler
sampler.

References:
    Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. 2022, section 3.
    https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from torch import Tensor

from sfumato.core.bounds import Few, NoLimit, NotNegative, Positive
from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, State
from sfumato.core.gauge import Gauge, named
from sfumato.core.level import Level, like
from sfumato.core.noise import Noise
from sfumato.samplers._cfgpp import renoising, shifted
from sfumato.samplers._churn import Churn

ORDER = 1


def euler(
    denoiser: Denoiser,
    x: Tensor,
    grid: Level,
    *,
    noise: Noise | None = None,
    label: Label | None = None,
    gauge: Literal["ve", "flow", "vp"] | Gauge = "flow",
    churn: NotNegative = 0.0,
    s_min: NoLimit = 0.0,
    s_max: NoLimit = float("inf"),
    s_noise: Few = 1.0,
    nsr_max: Positive | None = None,
    snap: Callable[[Level], Level] | None = None,
    cfgpp: bool = False,
) -> Iterator[State]:
    """Follow the tangent of the probability-flow ODE; first order, one call of the denoiser per step.

    Arguments:
        denoiser: The model, any denoiser.
        x: Start at grid[0], shape (B, ...).
        grid: Levels from noisy to clean, shape (N + 1,).
        noise: step -> unit normal noise of x's shape; asked for only where churn adds some.
        label: Class of each image, int64 (B,); None for none.
        gauge: Coordinates of the step: "ve" and "flow" equal DDIM, "vp" differs.
        churn: Total amount of added noise; EDM uses 0 to 80 for N = 18 to 256.
        s_min: No churn below this nsr.
        s_max: No churn above this nsr.
        s_noise: Standard deviation of the added noise, slightly above 1 to make up for lost detail.
        nsr_max: Churn never exceeds this nsr; None for that of grid[0].
        snap: Level -> nearest level that the model knows, for churn; None for a model that knows all.
        cfgpp: Keep the noise of the unconditional estimate (CFG++), for guidance weights in [0, 1].

    Yields:
        The state after every step.
    """
    path = named(gauge)
    limit = float(grid.nsr[0]) if nsr_max is None else nsr_max
    churned = Churn(churn, s_min, s_max, s_noise, limit, len(grid) - 1, snap)
    for i in range(len(grid) - 1):
        x, t = churned(x, grid[i], noise, i)
        s = grid[i + 1]
        prediction = denoiser(x, t, label)
        x0 = prediction.x0
        kept = renoising(prediction) if cfgpp else x0
        y, u = path.enter(x, t)
        y = y + like(path.where(s)[1] - u, y) * path.velocity(y, u, kept)
        x = path.leave(y, s)
        x = shifted(x, x0, kept, s) if cfgpp else x
        yield State(x, s, x0)
