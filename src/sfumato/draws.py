"""Draws: the distribution of levels that training visits, as quantile functions u in (0, 1) -> Level.

A draw does not own randomness: it maps uniform numbers, which come from addressed noise, onto levels. So the same
draw works streamed, stratified over a batch (`stratify`), or at chosen quantiles for a plot.

    uniform        t uniform on a schedule; on a table, one of the entries 1..T
    lognormal      ln nsr ~ N(mean, std^2)                     EDM, Table 1
    logit_normal   ln (t / (1 - t)) ~ N(mean, std^2)           flow matching, SD3
    importance     entry i of a table, p_i ~ sqrt(E[loss_i^2])  iDDPM, section 3.3

Drawing a level more often and weighting it more are the same in expectation; they differ in the gradient's variance.
`importance` therefore returns the weight 1 / (T p_i) that leaves the expected loss unchanged.

References:
    Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. 2022, Table 1.
    https://arxiv.org/abs/2206.00364
    Esser et al. Scaling Rectified Flow Transformers for High-Resolution Image Synthesis. 2024, section 3.1.
    https://arxiv.org/abs/2403.03206
    Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. 2021, eq. (18).
    https://arxiv.org/abs/2102.09672
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sfumato.core.bounds import Few, Fraction, Log, NoLimit, Size, UpToOne, check_times
from sfumato.core.level import Level, Schedule, index_in
from sfumato.core.noise import stratify as stratify
from sfumato.core.table import Table

Draw = Callable[[Tensor], Level]  # u in (0, 1), float64 (B,) -> Level (B,)


def uniform(schedule: Schedule, t_min: Fraction = 0.0, t_max: UpToOne = 1.0) -> Draw:
    """Visit a schedule's times uniformly; a table's entries 1..T with equal probability.

    Arguments:
        schedule: Time in [0, 1] -> level, or a `Table`.
        t_min: Smallest time, where a continuous schedule is singular at 0 (score SDE: 1e-5).
        t_max: Largest time that is drawn.

    Raises:
        ValueError: If the times are not ordered in [0, 1], or are given for a table.
    """
    check_times(t_min, t_max)
    if isinstance(schedule, Table):
        if (t_min, t_max) != (0.0, 1.0):
            raise ValueError("A table is drawn from as a whole; leave out t_min and t_max.")
        levels, steps = schedule.levels, schedule.steps
        return lambda u: levels[1 + (u * steps).long().clamp(max=steps - 1)]
    return lambda u: schedule(t_min + u * (t_max - t_min))


def lognormal(mean: Log = -1.2, std: Few = 1.2, sigma_min: NoLimit = 0.0, sigma_max: NoLimit = float("inf")) -> Draw:
    """Draw ln nsr from a normal distribution.

    Arguments:
        mean: Mean of ln nsr.
        std: Standard deviation of ln nsr, > 0.
        sigma_min: Smaller values of nsr are raised to it.
        sigma_max: Larger values of nsr are lowered to it.
    """
    _check_std(std)

    def draw(u: Tensor) -> Level:
        nsr = (mean + std * torch.special.ndtri(u)).exp().clamp(sigma_min, sigma_max)
        return Level(torch.ones_like(nsr), nsr)

    return draw


def logit_normal(mean: Log = 0.0, std: Few = 1.0) -> Draw:
    """Draw the logit of the straight-line time from a normal distribution; levels are (1 - t, t).

    Arguments:
        mean: Mean of ln(t / (1 - t)); negative favours clean images.
        std: Standard deviation of ln(t / (1 - t)), > 0.
    """
    _check_std(std)

    def draw(u: Tensor) -> Level:
        logit = mean + std * torch.special.ndtri(u)
        return Level(torch.sigmoid(-logit), torch.sigmoid(logit))

    return draw


def _check_std(std: float) -> None:
    if not std > 0:
        raise ValueError(f"std must be positive; got {std}.")


def importance(table: Level, history: Size = 10, uniform_share: UpToOne = 0.001) -> Importance:
    """Draw a table's entries by the root mean square of their recent losses.

    Arguments:
        table: From clean to noisy, shape (T + 1,).
        history: Losses remembered per entry; until every entry has as many, the draw is uniform.
        uniform_share: Probability mass spread evenly, so that no entry starves.
    """
    return Importance(table, history, uniform_share)


class Importance:
    """Hold the loss history of an `importance` draw; the only draw with a memory.

    Attributes:
        losses: The last losses of each entry 1..T, oldest first, float64 (T, history).
        counts: How many of them are there, int64 (T,).
    """

    def __init__(self, table: Level, history: int = 10, uniform_share: float = 0.001) -> None:
        if history < 1 or not 0 < uniform_share <= 1:
            raise ValueError(
                f"importance needs history >= 1 and uniform_share in (0, 1]; got {history} and {uniform_share}."
            )
        self.table, self.uniform_share = table, uniform_share
        self.losses = torch.zeros(len(table) - 1, history, dtype=torch.float64)
        self.counts = torch.zeros(len(table) - 1, dtype=torch.int64)

    @property
    def warm(self) -> bool:
        """Whether every entry has a full history."""
        return bool((self.counts == self.losses.shape[1]).all())

    @property
    def weights(self) -> Tensor:
        """Unnormalised probabilities of the entries 1..T, (T,): all 1 until warm, then with sum 1."""
        if not self.warm:
            return torch.ones(len(self.counts), dtype=torch.float64)
        rms = (self.losses**2).mean(1).sqrt()
        return rms / rms.sum() * (1 - self.uniform_share) + self.uniform_share / len(rms)

    @property
    def probabilities(self) -> Tensor:
        """Probabilities of the entries 1..T, shape (T,)."""
        return self.weights / self.weights.sum()

    def __call__(self, u: Tensor) -> Level:
        cumulative = self.probabilities.cumsum(0)
        index = torch.searchsorted(cumulative, u * cumulative[-1], right=True)
        return self.table[1 + index.clamp(max=len(cumulative) - 1)]

    def weight(self, level: Level) -> Tensor:
        """Return 1 / (T p_i) for drawn levels, shape (B,): the factor that keeps the expected loss unbiased."""
        return 1 / (len(self.counts) * self.probabilities[index_in(self.table, level) - 1])

    def update(self, level: Level, loss: Tensor) -> None:
        """Remember the losses of a batch (gathered over all devices), in order.

        Arguments:
            level: Drawn levels, shape (B,).
            loss: The unweighted loss of each, shape (B,).
        """
        for i, value in zip((index_in(self.table, level) - 1).tolist(), loss.detach().double().cpu().tolist()):
            if self.counts[i] < self.losses.shape[1]:
                self.losses[i, self.counts[i]] = value
                self.counts[i] += 1
            else:
                self.losses[i] = torch.cat((self.losses[i, 1:], self.losses.new_tensor([value])))

    def state(self) -> dict[str, Tensor]:
        """Return the history as tensors, for a checkpoint."""
        return {"losses": self.losses.clone(), "counts": self.counts.clone()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore a history written by `state`.

        Raises:
            ValueError: If it was written for another table or history length.
        """
        if state["losses"].shape != self.losses.shape:
            raise ValueError(
                f"This history holds {tuple(state['losses'].shape)} losses and the draw {tuple(self.losses.shape)}; "
                "the table or the history length differs from the run that wrote it."
            )
        self.losses, self.counts = state["losses"].clone().double(), state["counts"].clone().long()
