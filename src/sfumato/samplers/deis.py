"""DEIS: the noise as a polynomial in time, integrated against its exact weight.

In x / alpha the ODE is d(x / alpha) / d rho = n with rho = nsr. Adams-Bashforth's polynomial of the noise may be taken
in any coordinate T of time, while the integral stays over rho:

    x_s / alpha_s = x_t / alpha_t + int_{rho_t}^{rho_s} n(T(rho)) d rho

    "t"        the time of the linear VP schedule, alpha_bar = exp(-19.9 t^2 / 2 - 0.1 t): the paper's tAB
    "rho"      T = rho: rhoAB, the same as `adams` in gauge "ve"
    "logrho"   T = ln rho: the same as `dpmpp` with predict = "noise", and what diffusers calls DEIS

In the form of `_multistep` (DDIM plus a correction, both singular ends left at first order) a coordinate is the moments
M_m = int ((T - T_t) / (T_s - T_t))^m d rho / rho_s. They are found by Gauss-Legendre quadrature in ln rho, to rounding.

References:
    Zhang, Chen. Fast Sampling of Diffusion Models with Exponential Integrator. 2023, eqs. (14)-(17) and section 4.
    https://arxiv.org/abs/2204.13902
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sfumato.core.denoiser import Denoiser, State
from sfumato.core.level import Level
from sfumato.samplers._multistep import (
    check_choice,
    check_order,
    combine,
    ddim,
    has_log_snr,
    noise_in,
    weights,
)

ORDER = 3


def _vp_time(nsr: Tensor, beta_min: float = 0.1, beta_max: float = 20.0) -> Tensor:
    """Return t of the linear VP schedule: ln(1 + nsr^2) = (beta_max - beta_min) t^2 / 2 + beta_min t."""
    drop = torch.log1p(nsr**2)
    return 2 * drop / (beta_min + torch.sqrt(beta_min**2 + 2 * (beta_max - beta_min) * drop))


_COORDINATES: dict[str, Callable[[Tensor], Tensor]] = {"t": _vp_time, "rho": lambda nsr: nsr, "logrho": torch.log}


def _moments(coordinate: Callable[[Tensor], Tensor], t: Tensor, s: Tensor, count: int) -> Tensor:
    """Return M_1 .. M_count of a step from nsr t to nsr s, in units of nsr s."""
    points, mass = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(32))
    span = (s / t).log()
    panels = max(1, math.ceil(-float(span)))  # at most one e-fold a panel
    edges = torch.arange(panels, dtype=torch.float64).unsqueeze(1)
    part = (edges + (points + 1) / 2) / panels  # (panels, 32) in [0, 1]
    rho = t * torch.exp(span * part)
    ratio = (coordinate(rho) - coordinate(t)) / (coordinate(s) - coordinate(t))
    density = span / panels * mass / 2 * rho / s
    return torch.stack([(density * ratio**m).sum() for m in range(1, count + 1)])


def deis(
    denoiser: Denoiser,
    x: Tensor,
    grid: Level,
    *,
    noise: Callable[[int], Tensor],
    label: Tensor | None = None,
    order: int = 3,
    coordinate: Literal["t", "rho", "logrho"] = "t",
    lower_final: bool = False,
) -> Iterator[State]:
    """Walk the ODE with DEIS: the noise as a polynomial in a chosen time, integrated exactly, one call a step.

    Arguments:
        denoiser: Any denoiser.
        x: Start at grid[0], shape (B, ...).
        grid: Levels from noisy to clean, shape (N + 1,).
        noise: Not used.
        label: int64 (B,) or None.
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
    past: deque[tuple[Level, Tensor]] = deque(maxlen=order - 1)
    steps = len(grid) - 1
    for i in range(steps):
        t, s = grid[i], grid[i + 1]
        x0 = denoiser(x, t, label).x0
        n = noise_in(x, x0, t)
        used = [(level, value) for level, value in past if has_log_snr(level)]
        used = used[: steps - 1 - i] if lower_final else used
        x = ddim(x, x0, t, s)
        if used and has_log_snr(t) and has_log_snr(s):
            nodes = torch.stack([time(level.nsr) for level, _ in used]) - time(t.nsr)
            c = weights(nodes / (time(s.nsr) - time(t.nsr)), _moments(time, t.nsr, s.nsr, len(used)))
            x = combine(x, s.sigma, c, n, [value for _, value in used])
        past.appendleft((t, n))
        yield State(x, s, x0)
