"""PNDM: pseudo linear multistep, the transfer of DDIM with the noise of Adams-Bashforth.

Average the last noise estimates with the weights of equal steps and let DDIM carry the average:

    e = n_0 + sum_j c_j (n_j - n_0)            order 2: (3 n_0 - n_1) / 2,  4: (55 n_0 - 59 n_1 + 37 n_2 - 9 n_3) / 24
    x_s = alpha_s (x_t - sigma_t e) / alpha_t + sigma_s e

The weights belong to a grid of equal steps in the time t in which n is smooth (a respaced or trailing grid of a
discrete schedule); the transfer then averages n over nsr instead of t, so the order is 2 whatever the weights. On a
grid of unequal steps it is 1: use `deis` there, which integrates the same polynomial exactly.

The history starts by lower orders (`warmup` "euler", known as iPNDM), by redoing the first step with the mean of the
noise at both of its ends ("heun", PLMS as in Stable Diffusion), one call more, or by three steps of Runge-Kutta in four
calls each ("runge-kutta", the paper's pseudo-RK4): such a step spans two intervals of the grid, its middle and its end,
so the first six intervals should be halves of the others.

References:
    Liu, Ren, Lin, Zhao. Pseudo Numerical Methods for Diffusion Models on Manifolds. 2022, section 3.
    https://arxiv.org/abs/2202.09778
    Zhang, Chen. Fast Sampling of Diffusion Models with Exponential Integrator. 2023, appendix (iPNDM).
    https://arxiv.org/abs/2204.13902
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Literal

from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, State
from sfumato.core.level import Level
from sfumato.core.noise import Noise
from sfumato.samplers._multistep import (
    Point,
    check_choice,
    check_order,
    combine,
    ddim,
    noise_in,
    points,
    uniform_moments,
    weights,
)

ORDER = 2


def pndm(
    denoiser: Denoiser,
    x: Tensor,
    grid: Level,
    *,
    noise: Noise | None = None,
    label: Label | None = None,
    order: int = 4,
    warmup: Literal["euler", "heun", "runge-kutta"] = "heun",
) -> Iterator[State]:
    """Walk the ODE with PLMS (pseudo linear multistep) on a grid of equal time steps, one call a step.

    Arguments:
        denoiser: The model, any denoiser.
        x: Start at grid[0], shape (B, ...).
        grid: Levels from noisy to clean, shape (N + 1,), equal steps in t.
        noise: Never asked for; the sampler is deterministic.
        label: Class of each image, int64 (B,); None for none.
        order: Order of the Adams-Bashforth weights, 1 to 4.
        warmup: How the history starts: "euler" (iPNDM, nfe = N), "heun" (PLMS, nfe = N + 1 if order > 1) or
            "runge-kutta" (PNDM, nfe = N + 6 if N > 6).

    Yields:
        The state after every step.

    Raises:
        ValueError: If the order or warm-up is unknown.
    """
    check_order("pndm", order, 4)
    check_choice("pndm", "warmup", warmup, ("euler", "heun", "runge-kutta"))
    past: deque[Tensor] = deque(maxlen=order - 1)
    levels = points(grid)
    begun = 0
    for i in (0, 2, 4) if warmup == "runge-kutta" else ():
        span = levels[i : i + 3]
        if len(span) < 3 or not all(at.inside for at in span):
            break
        states, n = _runge_kutta(denoiser, x, grid[i : i + 3], label)
        yield from states
        x, begun = states[-1].x, i + 2
        past.appendleft(n)
    for i in range(begun, len(levels) - 1):
        t, s = levels[i], levels[i + 1]
        x0 = denoiser(x, grid[i], label).x0
        n = noise_in(x, x0, t)
        moved = ddim(x, x0, t, s)
        if i == 0 and warmup == "heun" and order > 1 and t.inside and s.inside:
            end = noise_in(moved, denoiser(moved, grid[i + 1], label).x0, s)
            c, others = [0.5], [end]
        else:
            c, others = weights([-1.0 - j for j in range(len(past))], uniform_moments(len(past))), list(past)
        x = combine(moved, s.sigma - s.alpha * t.sigma / t.alpha, c, n, others) if others else moved
        past.appendleft(n)
        yield State(x, grid[i + 1], x0)


def _runge_kutta(denoiser: Denoiser, x: Tensor, grid: Level, label: Label | None) -> tuple[list[State], Tensor]:
    """Return the states at the middle and the end of a step in four calls, and the noise at its start."""
    t, middle, s = points(grid)
    x0 = denoiser(x, grid[0], label).x0

    def noise_after(n: Tensor, at: Point, level: Level) -> tuple[Tensor, Tensor]:
        there = _carried(x, n, t, at)
        return there, noise_in(there, denoiser(there, level, label).x0, at)

    first = noise_in(x, x0, t)
    _, second = noise_after(first, middle, grid[1])
    halfway, third = noise_after(second, middle, grid[1])
    _, fourth = noise_after(third, s, grid[2])
    end = _carried(x, (first + 2 * second + 2 * third + fourth) / 6, t, s)
    return [State(halfway, grid[1], x0), State(end, grid[2], x0)], first


def _carried(x: Tensor, n: Tensor, t: Point, s: Point) -> Tensor:
    """Return DDIM's step from t to s with the noise n; both levels have signal."""
    keep = s.alpha / t.alpha
    return keep * x + (s.sigma - keep * t.sigma) * n
