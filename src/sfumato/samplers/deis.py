"""DEIS: the noise as a polynomial in time, integrated against its exact weight.

In x / alpha the ODE is d(x / alpha) / d rho = n with rho = nsr. Adams-Bashforth's polynomial of the noise may be taken
in any coordinate T of time, while the integral stays over rho:

    x_s / alpha_s = x_t / alpha_t + int_{rho_t}^{rho_s} n(T(rho)) d rho

    "t"        the time of the linear VP schedule, alpha_bar = exp(-19.9 t^2 / 2 - 0.1 t): the paper's tAB
    "rho"      T = rho: rhoAB, the same as `adams` in gauge "ve"
    "logrho"   T = ln rho: the same as `dpmpp` with predict = "noise" and exact moments, and what diffusers calls DEIS.
               The smallest errors of all samplers on Karras and log-SNR grids from about 10 steps on (order 4)

In the form of `_multistep` (DDIM plus a correction, both singular ends left at first order) a coordinate is the moments
M_m = int ((T - T_t) / (T_s - T_t))^m d rho / rho_s. They are found by Gauss-Legendre quadrature in ln rho, to rounding.

References:
    Zhang, Chen. Fast Sampling of Diffusion Models with Exponential Integrator. 2023, sections 3-4.
    https://arxiv.org/abs/2204.13902
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np
from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, State
from sfumato.core.level import Level
from sfumato.core.noise import Noise
from sfumato.samplers._multistep import Point, check_choice, check_order, combine, ddim, noise_in, points, weights

ORDER = 3


def _vp_time(log_nsr: np.ndarray, beta_min: float = 0.1, beta_max: float = 20.0) -> np.ndarray:
    """Return t of the linear VP schedule: ln(1 + nsr^2) = (beta_max - beta_min) t^2 / 2 + beta_min t."""
    drop = np.logaddexp(0, 2 * log_nsr)
    return 2 * drop / (beta_min + np.sqrt(beta_min**2 + 2 * (beta_max - beta_min) * drop))


_COORDINATES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"t": _vp_time, "rho": np.exp, "logrho": np.positive}
_quadrature = cache(np.polynomial.legendre.leggauss)


def _moments(time: Callable[[np.ndarray], np.ndarray], t: Point, s: Point, count: int) -> list[float]:
    """Return M_1 .. M_count of a step, in units of nsr_s."""
    places, mass = _quadrature(32)
    span = t.lam - s.lam  # of ln rho, < 0
    panels = max(1, math.ceil(-span))  # at most one e-fold a panel
    share = ((np.arange(panels)[:, None] + (places + 1) / 2) / panels).ravel()  # of the step, in (0, 1)
    start, end = time(np.array([-t.lam, -s.lam]))
    ratio = (time(-t.lam + span * share) - start) / (end - start)
    density = span / panels * np.tile(mass / 2, panels) * np.exp(span * (share - 1))
    return [float((density * ratio**m).sum()) for m in range(1, count + 1)]


def deis(
    denoiser: Denoiser,
    x: Tensor,
    grid: Level,
    *,
    noise: Noise | None = None,
    label: Label | None = None,
    order: int = 3,
    coordinate: Literal["t", "rho", "logrho"] = "logrho",
    lower_final: bool = False,
) -> Iterator[State]:
    """Walk the ODE with DEIS: the noise as a polynomial in a chosen time, integrated exactly, one call a step.

    Arguments:
        denoiser: The model, any denoiser.
        x: Start at grid[0], shape (B, ...).
        grid: Levels from noisy to clean, shape (N + 1,).
        noise: Never asked for; the sampler is deterministic.
        label: Class of each image, int64 (B,); None for none.
        order: 1 to 4 (the paper's AB0 to AB3).
        coordinate: In which time the noise is a polynomial.
        lower_final: Lower the order to the number of steps left, for grids of few steps.

    Yields:
        The state after every step; nfe = N.

    Raises:
        ValueError: If the order or coordinate is unknown.
    """
    check_order("deis", order, 4)
    check_choice("deis", "coordinate", coordinate, _COORDINATES)
    time = _COORDINATES[coordinate]
    past: deque[tuple[Point, Tensor]] = deque(maxlen=order - 1)
    steps = len(grid) - 1
    for i, (t, s) in enumerate(pairwise(points(grid))):
        x0 = denoiser(x, grid[i], label).x0
        n = noise_in(x, x0, t)
        used = [(at, value) for at, value in past if at.inside]
        used = used[: steps - 1 - i] if lower_final else used
        x = ddim(x, x0, t, s)
        if used and t.inside and s.inside:
            start, end, *nodes = time(np.array([-at.lam for at in (t, s, *(at for at, _ in used))]))
            c = weights([(node - start) / (end - start) for node in nodes], _moments(time, t, s, len(used)))
            x = combine(x, s.sigma, c, n, [value for _, value in used])
        past.appendleft((t, n))
        yield State(x, grid[i + 1], x0)
