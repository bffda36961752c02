"""Adams-Bashforth in the gauge coordinate, any grid, any order up to 4.

On a gauge (`core.gauge`) the ODE is dy/du = f = A' x0 + S' n. The last q + 1 slopes define a polynomial in u, which is
integrated exactly over the step:

    y_s = y_t + du (f_0 + sum_j c_j (f_j - f_0)),    sum_j c_j r_j^m = 1 / (m + 1),    r_j = (u_j - u_t) / du

With equal steps the c_j are the textbook's (order 2: 3/2, -1/2). The first steps have order 1, 2, ... One call a step.

    gauge "ve"     f = n, u = nsr: the linear multistep method (LMS) of k-diffusion, and rho-AB of DEIS
    gauge "flow"   f = n - x0 in the time of flow matching; may start at alpha = 0; the smallest errors of all samplers
                   on flow grids, and at fewer than 10 steps on the others
    gauge "vp"     f = the velocity on the circle; may start at alpha = 0

No gauge is singular at the clean level, so the last step keeps its order; a step of order 1 is Euler.

References:
    Hairer, Norsett, Wanner. Solving Ordinary Differential Equations I. 1993, section III.5 (variable steps).
    https://doi.org/10.1007/978-3-540-78862-1
    Zhang, Chen. Fast Sampling of Diffusion Models with Exponential Integrator. 2023, section 3.
    https://arxiv.org/abs/2204.13902
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Literal

from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, State
from sfumato.core.gauge import Gauge, named
from sfumato.core.level import Level
from sfumato.core.noise import Noise
from sfumato.samplers._multistep import check_order, combine, uniform_moments, weights

ORDER = 3


def adams(
    denoiser: Denoiser,
    x: Tensor,
    grid: Level,
    *,
    noise: Noise | None = None,
    label: Label | None = None,
    order: int = 3,
    gauge: Literal["ve", "flow", "vp"] | Gauge = "flow",
    lower_final: bool = False,
) -> Iterator[State]:
    """Walk the ODE with Adams-Bashforth (LMS) of variable step in a gauge's time, one call a step.

    Arguments:
        denoiser: The model, any denoiser.
        x: Start at grid[0], shape (B, ...).
        grid: Levels from noisy to clean, shape (N + 1,); alpha > 0 with gauge "ve".
        noise: Never asked for; the sampler is deterministic.
        label: Class of each image, int64 (B,); None for none.
        order: 1 to 4.
        gauge: The coordinate of the step; any `Gauge`, such as a schedule's own time.
        lower_final: Lower the order to the number of steps left, for grids of few steps.

    Yields:
        The state after every step; nfe = N.

    Raises:
        ValueError: If the order or gauge is unknown, or gauge "ve" meets alpha = 0.
    """
    check_order("adams", order, 4)
    path = named(gauge)
    time = path.where(grid)[1].tolist()
    past: deque[tuple[float, Tensor]] = deque(maxlen=order - 1)
    steps = len(grid) - 1
    for i in range(steps):
        u, du = time[i], time[i + 1] - time[i]
        x0 = denoiser(x, grid[i], label).x0
        y, place = path.enter(x, grid[i])
        f = path.velocity(y, place, x0)
        used = list(past)[: steps - 1 - i] if lower_final else list(past)
        y = y + du * f
        if used:
            c = weights([(v - u) / du for v, _ in used], uniform_moments(len(used)))
            y = combine(y, du, c, f, [value for _, value in used])
        past.appendleft((u, f))
        x = path.leave(y, grid[i + 1])
        yield State(x, grid[i + 1], x0)
