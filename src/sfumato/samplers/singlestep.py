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

With `stages` "between" a step spans one interval and its stages lie between, evenly spaced in log-SNR, at one call
more for each: N steps of order k cost k N calls, but the step to the clean level costs one. A model of a discrete chain
has to be asked between its levels then (conditioning index-between). k-diffusion's DPM2 is order 2 with `predict`
"noise", moments "midpoint" and such stages, its DPM++ 2S the same with "x0".

The last stage is the only one that the end of a third-order step reads; with `parabola` it reads both, and is exact on
parabolas at any nodes (the authors' "taylor").

eta > 0 ends every step at the cleaner level nsr_down and adds fresh noise up to nsr_s
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

import torch
from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, State
from sfumato.core.gauge import Gauge, named
from sfumato.core.level import Level
from sfumato.core.noise import Noise, drawn
from sfumato.samplers._multistep import Point, check_choice, check_order, exponential, noise_in, points

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
    stages: Literal["grid", "between"] = "grid",
    parabola: bool = False,
    gauge: Literal["ve", "flow", "vp"] | Gauge = "ve",
) -> Iterator[State]:
    """Walk the ODE with singlestep DPM-Solver (DPM2, DPM++ 2S, 3S), stages on the grid or between its levels.

    Arguments:
        denoiser: The model, any denoiser.
        x: Start at grid[0], shape (B, ...).
        grid: Levels from noisy to clean, shape (N + 1,).
        noise: step index -> unit normal noise; called with the last interval of each step, only if eta > 0.
        label: Class of each image, int64 (B,); None for none.
        order: 1 to 3, the number of calls a step makes, and of intervals it spans if its stages are levels of the grid.
        predict: "x0" (DPM-Solver++) or "noise" (DPM-Solver).
        moments: How the difference is weighed: "exact", or the published "midpoint" at the end of a step of order 2.
        eta: Share of fresh noise, in [0, 1].
        lower_final: End with a step of order 2 and one of order 1 where a last step of order 3 would end the grid.
        stages: Where a step is asked on its way: at levels of the "grid", or "between" two of them.
        parabola: Let a step of order 3 end along the parabola through both of its stages.
        gauge: Path on which stages between levels lie: "ve", "flow" or "vp".

    Yields:
        The state after every interval (stages on the grid included); nfe = N with stages on the grid.

    Raises:
        ValueError: If the order is not 1, 2 or 3, or eta is outside [0, 1].
    """
    check_order("singlestep", order, 3)
    check_choice("singlestep", "predict", predict, ("x0", "noise"))
    check_choice("singlestep", "moments", moments, ("exact", "midpoint"))
    check_choice("singlestep", "stages", stages, ("grid", "between"))
    if not 0 <= eta <= 1:
        raise ValueError(f"singlestep: eta must be in [0, 1]; got {eta}.")
    levels, path, between = points(grid), named(gauge), stages == "between"
    steps = len(levels) - 1
    spans = [order] * steps if between else _spans(steps, order, levels[-1].sigma == 0, lower_final)
    i = 0
    for span in spans:
        stop = i + (1 if between else span)
        t, s = levels[i], levels[stop]
        end, renewed = _before_noise(t, s, eta)
        way = _between(t, end, span, path) if between else grid[i + 1 : stop]
        start, first = x, denoiser(x, grid[i], label).x0
        x0 = first
        others: list[tuple[Point, Tensor]] = []
        kind = moments if span == 2 else "exact"
        for level, at in zip(way, points(way)):
            x = exponential(start, first, t, at, others, predict=predict, kind=kind)
            if not between:
                yield State(x, level, x0)
            x0 = denoiser(x, level, label).x0
            found = (at, x0 if predict == "x0" else noise_in(x, x0, at))
            others = [*others, found] if parabola else [found]
        x = exponential(start, first, t, end, others, predict=predict, kind=kind)
        if renewed:
            x = x + renewed * drawn(noise, stop - 1)
        yield State(x, grid[stop], x0)
        i = stop


def _before_noise(t: Point, s: Point, eta: float) -> tuple[Point, float]:
    """Return where a step from t to s ends before fresh noise, and the standard deviation of that noise."""
    if not eta or not s.sigma:
        return s, 0.0
    fresh = -eta * eta * math.expm1(2 * (t.lam - s.lam))  # share of the variance at s
    (end,) = points(Level.of([s.alpha], [s.sigma * math.sqrt(1 - fresh)]))
    return end, s.sigma * math.sqrt(fresh)


def _between(t: Point, s: Point, order: int, path: Gauge) -> Level:
    """Return the stages of a step, order - 1 levels evenly spaced in log-SNR; none if it starts or ends at infinity."""
    count = order - 1 if t.inside and s.inside else 0
    shares = torch.arange(1, count + 1, dtype=torch.float64) / order
    nsr = (-t.lam - shares * (s.lam - t.lam)).exp()
    return path.at(path.where(Level.of(1.0, nsr))[1])
