"""DPM-Solver and DPM-Solver++, singlestep: Runge-Kutta methods whose stages are levels of the grid.

A step of order k starts afresh from one call at its beginning and makes k - 1 stages on the way. Here it spans k
intervals of the grid and its stages are the levels between, so N intervals cost N calls as in every multistep method,
discrete models are asked only for levels they know, and each stage (a solution of lower order) is a state of its own:

    from x_t, with P_0 = P(x_t):     r = (lambda - lambda_t) / (lambda_s - lambda_t), lambda = ln(alpha / sigma)
    stage at r_1      DDIM                                       P_1 from there
    stage at r_2      DDIM + correction with P_1                 P_2 from there   (order 3)
    end   at 1        DDIM + correction with the last stage's P

The correction is that of `_multistep`. A third-order step needs r_2 = 2/3, the node that integrates parabolas exactly
with two values: grids of equal steps in log-SNR have it, and any smooth grid has it in the limit of many steps.

k-diffusion's DPM2 is order 2 with `predict` "noise" and its DPM++ 2S is order 2 with "x0", on grids whose odd levels
are the midpoints in log-SNR. eta > 0 ends every step at the cleaner level nsr_down and adds fresh noise up to nsr_s
(ancestral sampling): nsr_up = eta nsr_s sqrt(1 - (nsr_s / nsr_t)^2), nsr_down^2 = nsr_s^2 - nsr_up^2. At order 1 that
is Euler ancestral sampling; with eta = 1, DDPM's with the small variance.

References:
    Lu et al. DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling. 2022, algorithms 1 and 2.
    https://arxiv.org/abs/2206.00927
    Lu et al. DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models. 2022, algorithm 1.
    https://arxiv.org/abs/2211.01095
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, State
from sfumato.core.level import Level
from sfumato.core.noise import Noise, drawn
from sfumato.samplers._multistep import check_choice, check_order, exponential, noise_in, points

ORDER = 2


def _spans(steps: int, order: int, ends_clean: bool, lower_final: bool) -> list[int]:
    """Return how many intervals each step spans; the step to the clean level spans one."""
    free = steps - 1 if ends_clean else steps
    spans = [order] * (free // order)
    if free % order:
        spans.append(free % order)
    elif lower_final and order > 2 and not ends_clean and spans:
        spans[-1:] = [order - 1, 1]
    return spans + [1] * ends_clean


def singlestep(
    denoiser: Denoiser,
    x: Tensor,
    grid: Level,
    *,
    noise: Noise | None = None,
    label: Label | None = None,
    order: int = 2,
    predict: Literal["x0", "noise"] = "x0",
    moments: Literal["exact", "midpoint"] = "exact",
    eta: float = 0.0,
    lower_final: bool = False,
) -> Iterator[State]:
    """Walk the ODE with singlestep DPM-Solver (DPM2, DPM++ 2S, 3S), stages on the grid, one call an interval.

    Arguments:
        denoiser: The model, any denoiser.
        x: Start at grid[0], shape (B, ...).
        grid: Levels from noisy to clean, shape (N + 1,).
        noise: step index -> unit normal noise; called with the last interval of each step, only if eta > 0.
        label: Class of each image, int64 (B,); None for none.
        order: 1 to 3, the number of intervals a step spans.
        predict: "x0" (DPM-Solver++) or "noise" (DPM-Solver).
        moments: How the difference is weighed: "exact", or the published "midpoint" at the end of a step of order 2.
        eta: Share of fresh noise, in [0, 1].
        lower_final: End with a step of order 2 and one of order 1 where a last step of order 3 would end the grid.

    Yields:
        The state after every interval (stages included); nfe = N.

    Raises:
        ValueError: If the order is not 1, 2 or 3, or eta is outside [0, 1].
    """
    check_order("singlestep", order, 3)
    check_choice("singlestep", "predict", predict, ("x0", "noise"))
    check_choice("singlestep", "moments", moments, ("exact", "midpoint"))
    if not 0 <= eta <= 1:
        raise ValueError(f"singlestep: eta must be in [0, 1]; got {eta}.")
    levels = points(grid)
    i = 0
    for span in _spans(len(levels) - 1, order, levels[-1].sigma == 0, lower_final):
        t, start = levels[i], x
        first = denoiser(x, grid[i], label).x0
        x0, others = first, []
        for k in range(i + 1, i + span + 1):
            s = end = levels[k]
            if k > i + 1:
                x0 = denoiser(x, grid[k - 1], label).x0
                others = [(levels[k - 1], x0 if predict == "x0" else noise_in(x, x0, levels[k - 1]))]
            renewed = 0.0
            if k == i + span and eta > 0 and s.sigma > 0:
                fresh = -eta * eta * math.expm1(2 * (t.lam - s.lam))  # share of the variance at s
                renewed = s.sigma * math.sqrt(fresh)
                end = points(Level.of([s.alpha], [s.sigma * math.sqrt(1 - fresh)]))[0]
            kind = moments if span == 2 else "exact"
            x = exponential(start, first, t, end, others, predict=predict, kind=kind)
            if renewed:
                x = x + renewed * drawn(noise, k - 1)
            yield State(x, grid[k], x0)
        i += span
