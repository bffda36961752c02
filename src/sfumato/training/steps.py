"""What all trainers have in common: what the loop asks of them, budget, learning rates, steps that are not finite.

A step whose loss or gradient norm is NaN or infinite is skipped: neither weights, averages nor the optimiser see it.
One that leaves weights whose norm is not finite counts as such a step too; averages and log do not see it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sfumato.processes.ranks import Ranks
from sfumato.runs import checkpoint
from sfumato.runs.plan import Plan
from sfumato.runs.recipe import Recipe, Train
from sfumato.training.ema import Averages


def share_spent(train: Train, seen: int, seconds: float) -> float:
    """Return the share of the budget spent: of the images, or of the minutes if the budget is in minutes.

    Arguments:
        train: Training settings of the recipe, which say the budget.
        seen: Number of images seen.
        seconds: Seconds of training, over all processes that made the run.
    """
    return seen / train.images if train.minutes is None else seconds / (60 * train.minutes)


def set_rates(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Set the learning rates of optimisers to their base rates times a factor."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def scale_rates(optimizers: Iterable[Optimizer], factors: Mapping[int, float]) -> None:
    """Multiply the base learning rates of some weights, before the first step: those of a factor become a group.

    Arguments:
        optimizers: The optimisers of all weights.
        factors: By the `id` of a weight; those that are not named keep their rate, and stand first.
    """
    if not factors:
        return
    for optimizer in optimizers:
        groups = list(optimizer.param_groups)
        optimizer.param_groups.clear()
        for group in groups:
            parts: dict[float, list[Tensor]] = {1.0: []}
            for weight in group["params"]:
                parts.setdefault(factors.get(id(weight), 1.0), []).append(weight)
            found = ({**group, "params": weights, "lr": group["lr"] * f} for f, weights in parts.items() if weights)
            optimizer.param_groups.extend(found)


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Return whether the norms of tensors are finite, a bool () on their device: the host need not wait for it."""
    return torch.stack(torch._foreach_norm(list(tensors))).isfinite().all()


class FiniteWatch:
    """Count non-finite steps and say when to give up.

    Arguments:
        in_a_row: More consecutive bad steps than this give up.
        window: So does a bad share above 1% of the last `window` steps.

    Attributes:
        total: Number of bad steps.
        run: Number of bad steps in a row, up to now.
        where: The last bad step and its samples, in words.
    """

    def __init__(self, in_a_row: int = 20, window: int = 1000) -> None:
        self.in_a_row, self.total, self.run, self.where = in_a_row, 0, 0, ""
        self.recent: deque[bool] = deque(maxlen=window)

    def record(self, good: bool, step: int, samples: range) -> None:
        """Note one step.

        Arguments:
            good: Whether it was finite.
            step: Number of the step, from 1.
            samples: Positions of its samples.
        """
        if not good:
            self.where = f"step {step}, samples {samples.start} to {samples.stop - 1}"
        self.recent.append(not good)
        self.run = 0 if good else self.run + 1
        self.total += not good

    @property
    def hopeless(self) -> bool:
        """Whether the limits are exceeded."""
        full = len(self.recent) == self.recent.maxlen
        return self.run > self.in_a_row or (full and sum(self.recent) > 0.01 * len(self.recent))

    def forgive(self) -> None:
        """Forget the recent past (after a rollback); the total stays."""
        self.run = 0
        self.recent.clear()


class Steps(Protocol):
    """What the loop asks of a trainer.

    Attributes:
        plan: Plan of the resolved recipe, its parts made once.
        recipe: The resolved recipe, what the run keeps.
        device: Device of the weights.
        ranks: The processes that train together.
        network: All that is trained, as one module.
        averages: Averages of the network's weights.
        watch: Counts steps that are not finite.
        seen: Images, counting skipped steps: the position of the next sample.
        step: Steps, counting skipped ones.
        elapsed: Seconds of training before this process.
    """

    plan: Plan
    recipe: Recipe
    device: torch.device
    ranks: Ranks
    network: nn.Module
    averages: Averages
    watch: FiniteWatch
    seen: int
    step: int
    elapsed: float

    def spent(self, now: float) -> float:
        """Return the share of the budget spent after `now` seconds of training in this process."""
        ...

    def advance(self, spent: float) -> bool:
        """Take one step; return whether it was finite, hence taken."""
        ...

    def record(self, now: float, spent: float) -> dict[str, Any]:
        """Return a log record of everything since the last one; `now` in seconds of this process."""
        ...

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return every tensor of the state, grouped by file."""
        ...

    def load(self, saved: checkpoint.Checkpoint) -> None:
        """Take over the state of a checkpoint."""
        ...
