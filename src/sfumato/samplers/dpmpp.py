"""DPM-Solver and DPM-Solver++, multistep.

Interpolate the prediction P as a polynomial in lambda = ln(alpha / sigma) through its last values and integrate it
exactly against the exponential of the linear part (`_multistep` derives the step). One network call a step:

    order 1          DDIM
    order 2  (2M)    the line through two values, its integral exact ("exact", elsewhere called heun) or half that of a
                     constant ("midpoint", as published; it measures the smaller error)
    order 3  (3M)    the parabola through three values

P is x0 (DPM-Solver++, the stable choice under guidance) or the noise (DPM-Solver). The first steps have order 1, 2, ...
as history grows. A step to the clean level is x0 itself.

The multistep formula of third order in the authors' and other implementations takes the second divided difference,
which is half the second derivative, for the derivative. It measures order 1.9 where the one with the factor 2 measures
3; `published=True` asks for it.

References:
    Lu et al. DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling. 2022.
    https://arxiv.org/abs/2206.00927
    Lu et al. DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models. 2022, algorithm 2.
    https://arxiv.org/abs/2211.01095
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, State
from sfumato.core.level import Level
from sfumato.core.noise import Noise
from sfumato.samplers._multistep import Point, check_choice, check_order, exponential, noise_in, points

ORDER = 2


def dpmpp(
    denoiser: Denoiser,
    x: Tensor,
    grid: Level,
    *,
    noise: Noise | None = None,
    label: Label | None = None,
    order: int = 2,
    predict: Literal["x0", "noise"] = "x0",
    moments: Literal["exact", "midpoint"] = "midpoint",
    lower_final: bool = False,
    published: bool = False,
) -> Iterator[State]:
    """Walk the ODE with DPM-Solver++ (2M, 3M): a polynomial of x0 in log-SNR, one call a step.

    Arguments:
        denoiser: The model, any denoiser.
        x: Start at grid[0], shape (B, ...).
        grid: Levels from noisy to clean, shape (N + 1,).
        noise: Never asked for; the sampler is deterministic.
        label: Class of each image, int64 (B,); None for none.
        order: 1 to 3.
        predict: "x0" (DPM-Solver++) or "noise" (DPM-Solver).
        moments: How second-order steps weigh the difference: the published "midpoint" or "exact".
        lower_final: Lower the order to the number of steps left, for grids of few steps.
        published: Use the published third-order formula, which lacks a factor 2 and has order 2.

    Yields:
        The state after every step; nfe = N.

    Raises:
        ValueError: If the order is not 1, 2 or 3.
    """
    check_order("dpmpp", order, 3)
    check_choice("dpmpp", "predict", predict, ("x0", "noise"))
    check_choice("dpmpp", "moments", moments, ("exact", "midpoint"))
    past: deque[tuple[Point, Tensor]] = deque(maxlen=order - 1)
    steps = len(grid) - 1
    for i, (t, s) in enumerate(pairwise(points(grid))):
        x0 = denoiser(x, grid[i], label).x0
        value = x0 if predict == "x0" else noise_in(x, x0, t)
        used = list(past)[: steps - 1 - i] if lower_final else list(past)
        x = exponential(x, x0, t, s, used, predict=predict, kind=moments, published=published)
        past.appendleft((t, value))
        yield State(x, grid[i + 1], x0)
