"""The coordinates in which an ODE step is taken.

Along a path ``y = A(u) x0 + S(u) n`` with constant x0 and n the probability-flow ODE reads

    dy/du = A'(u) x0 + S'(u) n,      x0 = D(y),      n = (y - A x0) / S.

A *gauge* names the path. A level (alpha, sigma) lies on every gauge up to a scale: (alpha, sigma) = k (A(u), S(u)).
A solver converts x into y = x / k, steps in u, and converts back, so one Heun covers EDM, the VP and VE equations
and flow matching:

    ve      A = 1,     S = u        EDM's choice (sigma(t) = t, s(t) = 1)
    flow    A = 1 - u, S = u        the straight line of flow matching; starts at alpha = 0
    vp      A = cos u, S = sin u    the circle of v-prediction

On the first two, A and S are linear in u, and an Euler step is exactly DDIM. Any other time variable, such as the t
of the VP SDE, is a gauge too: give `along` its path and its inverse.

References:
    Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. 2022, eq. (4) and appendix B.
    https://arxiv.org/abs/2206.00364
    Song, Meng, Ermon. Denoising Diffusion Implicit Models. 2021, eq. (14). https://arxiv.org/abs/2010.02502
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core.level import Level, like


@dataclass(frozen=True, slots=True)
class Gauge:
    """Hold a path of levels and its inverse.

    Attributes:
        name: For messages and tables.
        at: u -> level (A(u), S(u)), float64.
        slope: u -> (A'(u), S'(u)), float64.
        where: level -> (k, u) with level = k * at(u).
    """

    name: str
    at: Callable[[Tensor], Level]
    slope: Callable[[Tensor], tuple[Tensor, Tensor]]
    where: Callable[[Level], tuple[Tensor, Tensor]]

    def enter(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """Return (y, u): the image in this gauge's coordinates and its coordinate on the path."""
        k, u = self.where(level)
        return x / like(k, x), u

    def leave(self, y: Tensor, level: Level) -> Tensor:
        """Return the image at a level, given its y at that level's coordinate on the path."""
        return like(self.where(level)[0], y) * y

    def velocity(self, y: Tensor, u: Tensor, x0: Tensor) -> Tensor:
        """Return dy/du = A' x0 + S' (y - A x0) / S, of y's shape; S(u) > 0."""
        path = self.at(u)
        da, ds = self.slope(u)
        per_y = ds / path.sigma
        return like(per_y, y) * y + like(da - per_y * path.alpha, y) * x0


def _finite_nsr(level: Level) -> tuple[Tensor, Tensor]:
    if not bool((level.alpha > 0).all()):
        raise ValueError(
            "The 've' gauge needs alpha > 0 (it divides by alpha); this grid starts from pure noise. "
            "Use gauge 'flow' or 'vp'."
        )
    return level.alpha, level.nsr


ve = Gauge(
    name="ve",
    at=lambda u: Level(torch.ones_like(u), u),
    slope=lambda u: (torch.zeros_like(u), torch.ones_like(u)),
    where=_finite_nsr,
)

flow = Gauge(
    name="flow",
    at=lambda u: Level(1 - u, u),
    slope=lambda u: (-torch.ones_like(u), torch.ones_like(u)),
    where=lambda level: (level.alpha + level.sigma, level.sigma / (level.alpha + level.sigma)),
)

vp = Gauge(
    name="vp",
    at=lambda u: Level(u.cos(), u.sin()),
    slope=lambda u: (-u.sin(), u.cos()),
    where=lambda level: (torch.hypot(level.alpha, level.sigma), torch.atan2(level.sigma, level.alpha)),
)

GAUGES = {g.name: g for g in (ve, flow, vp)}


def named(gauge: str | Gauge) -> Gauge:
    """Return the gauge of a name; a gauge is returned as it is.

    Raises:
        ValueError: For an unknown name.
    """
    if isinstance(gauge, Gauge):
        return gauge
    if gauge not in GAUGES:
        raise ValueError(f"Unknown gauge {gauge!r}. Available: {', '.join(GAUGES)}.")
    return GAUGES[gauge]


def _derivative(value: Tensor, u: Tensor) -> Tensor:
    """Return dvalue/du elementwise; 0 where value does not depend on u."""
    if not value.requires_grad:
        return torch.zeros_like(u, requires_grad=False)
    (slope,) = torch.autograd.grad(value.sum(), u, retain_graph=True)
    return slope.detach()


def along(name: str, path: Callable[[Tensor], Level], u_of_nsr: Callable[[Tensor], Tensor]) -> Gauge:
    """Make a gauge from any differentiable path, such as a schedule in its own time.

    Arguments:
        name: Name of the gauge in messages.
        path: u -> Level, elementwise; the slope is its exact derivative (automatic differentiation in float64).
        u_of_nsr: The inverse of ``path(u).nsr``.

    >>> quadratic = along("quadratic", lambda u: Level(torch.ones_like(u), u**2), torch.sqrt)
    >>> [float(v) for v in quadratic.slope(torch.tensor(3.0, dtype=torch.float64))]
    [0.0, 6.0]
    """

    def slope(u: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            at = u.clone().requires_grad_()
            level = path(at)
            return _derivative(level.alpha, at), _derivative(level.sigma, at)

    def where(level: Level) -> tuple[Tensor, Tensor]:
        u = u_of_nsr(level.nsr)
        own = path(u)
        k = torch.where(own.alpha > 0, level.alpha / own.alpha, level.sigma / own.sigma)
        return k, u

    return Gauge(name, path, slope, where)
