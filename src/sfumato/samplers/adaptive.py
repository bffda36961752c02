"""An adaptive black-box ODE solver: SciPy chooses the steps, for each image by itself.

On a gauge the ODE dy/du = A' x0 + S' n is smooth down to any sigma > 0, so a general solver of high order with an error
estimate integrates it to a tolerance. The grid only says where states are wanted: they are read off the solver's own
interpolant, so more levels cost nothing (three evaluations each with DOP853) and do not change the end. A step to the
clean level is x0 itself, since n is undefined there.

Step sizes are those of one image: solving a batch as one system would let the hardest image choose for all, and an
image would depend on its company. So the denoiser is called with one image at a time, and each call is one function
evaluation of one image: this is the sampler for reference solutions, not for speed.

The levels asked for lie on the gauge, not on the grid. A network that knows only a table of levels refuses them; one
with its own scale of x should be given the gauge it was trained on.

References:
    Dormand, Prince. A Family of Embedded Runge-Kutta Formulae. 1980. https://doi.org/10.1016/0771-050X(80)90013-3
    Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. 2021, section 4.3.
    https://arxiv.org/abs/2011.13456
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from sfumato.core.bounds import Inside
from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, State
from sfumato.core.gauge import Gauge, named
from sfumato.core.level import Level, like
from sfumato.core.noise import Noise
from sfumato.core.optional import optional
from sfumato.samplers._multistep import check_choice

if TYPE_CHECKING:
    from scipy.integrate import OdeSolver

ORDER = None  # the error follows rtol and atol, not the steps of the grid

_METHODS = ("RK23", "RK45", "DOP853", "LSODA")
_MOST = 100_000  # evaluations of one image: a tolerance below the rounding of the network is never reached


class _Image:
    """One image on its way: a SciPy solver and the newest estimate of x0."""

    def __init__(self, denoiser: Denoiser, path: Gauge, x: Tensor, label: Label | None) -> None:
        self.denoiser, self.path, self.label, self.like = denoiser, path, label, x
        self.newest: tuple[float, np.ndarray, Tensor] | None = None

    def tensor(self, y: np.ndarray) -> Tensor:
        return torch.from_numpy(y.copy()).to(self.like.dtype).to(self.like.device).reshape(self.like.shape)

    def x0(self, u: float, y: np.ndarray) -> Tensor:
        """Return the denoiser's estimate, called only if this is not the point of the last call."""
        if self.newest is None or self.newest[0] != u or not np.array_equal(self.newest[1], y):
            level = self.path.at(torch.tensor(u, dtype=torch.float64))
            self.newest = (float(u), y.copy(), self.denoiser(self.tensor(y), level, self.label).x0)
        return self.newest[2]

    def velocity(self, u: float, y: np.ndarray) -> np.ndarray:
        x0 = self.x0(u, y).to("cpu", torch.float64).flatten()
        return self.path.velocity(torch.from_numpy(y), torch.tensor(u, dtype=torch.float64), x0).numpy()


def _reach(solver: OdeSolver, u: float) -> np.ndarray:
    """Step until u is behind and return y(u); the solver counts u downwards."""
    while solver.t > u:
        message = solver.step()
        if solver.nfev >= _MOST:
            message = f"{_MOST:,} evaluations of one image are spent."
        if message:
            raise ArithmeticError(
                f"adaptive: the solver stopped at u = {solver.t:.6g} ({message}) "
                "Loosen rtol and atol, or end the grid at a larger sigma."
            )
    return solver.y if solver.t == u else solver.dense_output()(u)


def adaptive(
    denoiser: Denoiser,
    x: Tensor,
    grid: Level,
    *,
    noise: Noise | None = None,
    label: Label | None = None,
    gauge: Literal["ve", "flow", "vp"] | Gauge = "vp",
    method: Literal["RK23", "RK45", "DOP853", "LSODA"] = "RK45",
    rtol: Inside = 1e-5,
    atol: Inside = 1e-5,
) -> Iterator[State]:
    """Solve the ODE to a tolerance with SciPy's adaptive solvers, image by image; needs the extra 'ode'.

    Arguments:
        denoiser: Any denoiser that takes every level; called with one image at a time.
        x: Start at grid[0], shape (B, ...).
        grid: Levels where states are wanted, from noisy to clean, shape (N + 1,).
        noise: Never asked for; the sampler is deterministic.
        label: Class of each image, int64 (B,); None for none.
        gauge: Coordinate of the ODE; "vp" and "flow" may start at alpha = 0.
        method: Name of SciPy's solver.
        rtol: Relative tolerance of y, > 0.
        atol: Absolute tolerance of y, > 0.

    Yields:
        The state at every level of the grid; its x0 is the solver's newest estimate. The denoiser is called as often
        as the images' own evaluations together, the batch size times the mean nfe.

    Raises:
        ImportError: If SciPy is not installed.
        ValueError: If the method or gauge is unknown, or a tolerance is not positive.
        ArithmeticError: If the solver cannot reach the tolerance, or not in 100,000 evaluations of an image.
    """
    check_choice("adaptive", "method", method, _METHODS)
    if not (rtol > 0 and atol > 0):
        raise ValueError(f"adaptive: rtol and atol must be positive; got {rtol} and {atol}.")
    integrate = optional("scipy", "ode", "The sampler 'adaptive'", ImportError).integrate
    path = named(gauge)
    places = path.where(grid)[1].tolist()
    last = len(grid) - 2 if grid.sigma[-1] == 0 else len(grid) - 1  # where the solver ends
    y = path.enter(x, grid[0])[0].to("cpu", torch.float64).flatten(1).numpy()
    images = [_Image(denoiser, path, x[b : b + 1], None if label is None else label[b : b + 1]) for b in range(len(x))]
    solvers = [
        getattr(integrate, method)(image.velocity, places[0], y[b], places[last], rtol=rtol, atol=atol)
        for b, image in enumerate(images)
        if last > 0
    ]
    for i in range(1, last + 1):
        y = np.stack([_reach(solver, places[i]) for solver in solvers])
        if i == last:
            x0 = torch.cat([image.x0(places[i], y[b]) for b, image in enumerate(images)])
        else:
            x0 = torch.cat([image.newest[2] for image in images if image.newest])
        yield State(path.leave(torch.cat([image.tensor(y[b]) for b, image in enumerate(images)]), grid[i]), grid[i], x0)
    if last < len(grid) - 1:
        x0 = torch.cat([image.x0(places[last], y[b]) for b, image in enumerate(images)])
        yield State(like(grid.alpha[-1], x0) * x0, grid[-1], x0)
