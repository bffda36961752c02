"""Churn: raise the noise level before a deterministic step, by adding fresh noise.

From x at nsr r to r' = (1 + gamma) r:  x' = x + alpha sqrt(r'^2 - r^2) s_noise z, an exact draw of the forward process
for s_noise = 1. It trades the bias of accumulated errors for variance. It is active only for r in [s_min, s_max], with
gamma = min(churn / N, sqrt(2) - 1).

A network knows no level beyond its training range, so r' is clipped; without a given limit, to the grid's own start.
One that knows the levels of a table only is asked at the nearest of them (EDM's rounding of sigma), x brought to that
level's scale.

References:
    Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. 2022, algorithm 2.
    https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sfumato.core.level import Level, like
from sfumato.core.noise import Noise, drawn


@dataclass(frozen=True, slots=True)
class Churn:
    """Hold the churn options of a walk over N steps (see `samplers.heun` for their meaning)."""

    churn: float
    s_min: float
    s_max: float
    s_noise: float
    limit: float
    steps: int
    snap: Callable[[Level], Level] | None = None

    def __post_init__(self) -> None:
        if self.churn < 0 or self.s_noise < 0:
            raise ValueError(f"churn and s_noise are >= 0; got {self.churn} and {self.s_noise}.")

    def __call__(self, x: Tensor, level: Level, noise: Noise | None, step: int) -> tuple[Tensor, Level]:
        """Return (x, level) after churning; noise is drawn only if some is added."""
        nsr = float(level.nsr)
        gamma = min(self.churn / self.steps, math.sqrt(2) - 1) if self.s_min <= nsr <= self.s_max else 0.0
        if gamma == 0 or math.isinf(nsr):
            return x, level
        raised = Level(level.alpha, level.alpha * min((1 + gamma) * nsr, self.limit))
        if self.snap is not None:
            raised = self.snap(raised)
        kept = raised.alpha / level.alpha
        added = (raised.sigma**2 - (kept * level.sigma) ** 2).clamp(min=0).sqrt()
        if float(added) == 0 or float(raised.nsr) <= nsr:
            return x, level
        return like(kept, x) * x + like(self.s_noise * added, x) * drawn(noise, step), raised
