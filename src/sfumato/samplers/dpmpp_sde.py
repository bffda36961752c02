"""DPM-Solver++ for the reverse SDE.

The reverse SDE of strength eta (0 the ODE, 1 Anderson's reversal) has, like the ODE, an exact form with the linear
part integrated. With lambda = ln(alpha / sigma) and h = lambda_s - lambda_t

    x_s = (sigma_s / sigma_t) e^{-eta h} x_t + alpha_s int (1 + eta) e^{(1 + eta)(lambda - lambda_s)} x0(lambda) dlambda
          + sigma_s sqrt(1 - e^{-2 eta h}) z

so the multistep weights are those of the ODE at step (1 + eta) h, and the noise is exact. Equal to `dpmpp` at eta = 0
and, at order 1 and eta = 1, to ancestral sampling with the small variance. ORDER is the weak order, that of the
distribution of x.

References:
    Lu et al. DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models. 2022, section 5.
    https://arxiv.org/abs/2211.01095
    Gonzalez et al. SEEDS: Exponential SDE Solvers for Fast High-Quality Sampling from Diffusion Models. 2023.
    https://arxiv.org/abs/2305.14267
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

from torch import Tensor

from sfumato.core.bounds import Few
from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, State
from sfumato.core.level import Level
from sfumato.core.noise import Noise, drawn
from sfumato.samplers._multistep import Point, check_choice, check_order, exponential, points

ORDER = 2


def dpmpp_sde(
    denoiser: Denoiser,
    x: Tensor,
    grid: Level,
    *,
    noise: Noise | None = None,
    label: Label | None = None,
    order: int = 2,
    eta: Few = 1.0,
    moments: Literal["exact", "midpoint"] = "midpoint",
    lower_final: bool = False,
    published: bool = False,
) -> Iterator[State]:
    """Walk the reverse SDE with DPM-Solver++ (2M SDE, 3M SDE): multistep mean, exact noise, one call a step.

    Arguments:
        denoiser: The model, any denoiser.
        x: Start at grid[0], shape (B, ...).
        grid: Levels from noisy to clean, shape (N + 1,).
        noise: step index -> unit normal noise; not called at a step to the clean level, nor at eta = 0.
        label: Class of each image, int64 (B,); None for none.
        order: Order of the mean, 1 to 3.
        eta: Strength of the noise, >= 0; 0 is the ODE, 1 the reverse SDE.
        moments: How second-order steps weigh the difference: the published "midpoint" or "exact".
        lower_final: Lower the order to the number of steps left, for grids of few steps.
        published: Use the published third-order formula, which lacks a factor 2.

    Yields:
        The state after every step; nfe = N.

    Raises:
        ValueError: If the order is not 1, 2 or 3, or eta is negative.
    """
    check_order("dpmpp_sde", order, 3)
    check_choice("dpmpp_sde", "moments", moments, ("exact", "midpoint"))
    if eta < 0:
        raise ValueError(f"dpmpp_sde: eta must be >= 0 (0 is the ODE, 1 the reverse SDE); got {eta}.")
    past: deque[tuple[Point, Tensor]] = deque(maxlen=order - 1)
    steps = len(grid) - 1
    for i, (t, s) in enumerate(pairwise(points(grid))):
        x0 = denoiser(x, grid[i], label).x0
        used = list(past)[: steps - 1 - i] if lower_final else list(past)
        x = exponential(x, x0, t, s, used, kind=moments, published=published, eta=eta)
        if eta and s.sigma > 0:
            x = x + s.sigma * math.sqrt(-math.expm1(-2 * eta * (s.lam - t.lam))) * drawn(noise, i)
        past.appendleft((t, x0))
        yield State(x, grid[i + 1], x0)
