"""A discrete chain: the finite table of levels that a DDPM-style model is trained on.

A chain of T steps is given by the betas of ``q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)``. With
``abar_t = prod_{i <= t} (1 - beta_i)`` its levels are

    level_0 = (1, 0),    level_t = (sqrt(abar_t), sqrt(1 - abar_t)),    t = 1..T.

Products are summed as logarithms, ``ln abar = cumsum log1p(-beta)``, and ``1 - abar = -expm1(ln abar)``, so neither
end of the chain loses digits. Every other number of the chain (posterior means and variances, the betas of a
respaced chain) follows from pairs of levels, see `core.kernel`.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, eqs. (2)-(4). https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core.level import Level


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Hold the levels of a discrete chain; callable as a schedule.

    Attributes:
        levels: Levels from clean to noisy, shape (T + 1,), entry 0 = (1, 0).

    Raises:
        ValueError: If the levels do not start clean or do not become noisier at every step.
    """

    levels: Level

    def __post_init__(self) -> None:
        if len(self.levels) < 2 or float(self.levels.sigma[0]) != 0:
            raise ValueError("A table starts with the clean level (1, 0) and has at least one noisy level after it.")
        angle = torch.atan2(self.levels.sigma, self.levels.alpha)
        if not bool((angle.diff() > 0).all()):
            i = int((angle.diff() <= 0).nonzero()[0])
            raise ValueError(f"Every level of a table is noisier than the one before; entry {i + 1} is not.")

    @classmethod
    def from_betas(cls, betas: Tensor) -> Table:
        """Make the table of a variance-preserving chain.

        Arguments:
            betas: Shape (T,), each in (0, 1).

        Raises:
            ValueError: If a beta is outside (0, 1).
        """
        betas = betas.to(torch.float64)
        if not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError(
                f"Every beta of a chain lies in (0, 1); got {betas.min():.6g} to {betas.max():.6g} (T = {len(betas)})."
                " Use more steps, or a smaller beta_max."
            )
        log_abar = torch.cat((betas.new_zeros(1), torch.log1p(-betas).cumsum(0)))
        return cls(Level((log_abar / 2).exp(), (-torch.expm1(log_abar)).sqrt()))

    @property
    def steps(self) -> int:
        """T, the number of noisy levels."""
        return len(self.levels) - 1

    def __call__(self, t: Tensor) -> Level:
        """Return the level nearest to time t in [0, 1]; t = i / T is entry i exactly."""
        return self.levels[(t * self.steps).round().long().clamp(0, self.steps)]
