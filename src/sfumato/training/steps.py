"""What all trainers have in common: what the loop asks of them, budget, optimisers, steps that are not finite.

A step whose loss or gradient norm is NaN or infinite is skipped: neither weights, averages nor the optimiser see it.
One that leaves weights whose norm is not finite counts as such a step too; averages and log do not see it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sfumato.processes.ranks import Ranks
from sfumato.runs import checkpoint
from sfumato.runs.plan import Plan
from sfumato.runs.recipe import Train
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
    for optimizer in optimizers:
        groups = list(optimizer.param_groups)
        optimizer.param_groups.clear()
        for group in groups:
            parts: dict[float, list[Tensor]] = {1.0: []}
            for weight in group["params"]:
                parts.setdefault(factors.get(id(weight), 1.0), []).append(weight)
            found = ({**group, "params": weights, "lr": group["lr"] * f} for f, weights in parts.items() if weights)
            optimizer.param_groups.extend(found)


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's state as tensors named NUMBER.NAME."""
    flat: dict[str, Tensor] = {}
    for key, entry in optimizer.state_dict()["state"].items():
        flat |= {f"{key}.{name}": torch.as_tensor(value) for name, value in entry.items()}
    return flat


def load_optimizer(
    optimizer: Optimizer,
    saved: Mapping[str, Tensor],
    divided: Callable[[Tensor, Tensor], Tensor] = lambda value, like: value,
) -> None:
    """Take over what `optimizer_tensors` returned.

    Arguments:
        optimizer: Optimiser of the same parameters.
        saved: Tensors by name, each whole.
        divided: (value, parameter) -> what this process keeps of it, where several divide the parameters.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = divided(value, parameters[int(number)]).clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


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


class Steps(ABC):
    """What all trainers hold, and what the loop asks of each.

    Arguments:
        plan: Plan of the resolved recipe, its parts made once.
        device: Device of the weights.
        ranks: The processes that train together.

    Attributes:
        recipe: The resolved recipe, what the run keeps.
        network: All that is trained, as one module.
        averages: Averages of the network's weights.
        watch: Counts steps that are not finite.
        seen: Images, counting skipped steps: the position of the next sample.
        step: Steps, counting skipped ones.
        elapsed: Seconds of training before this process.
    """

    network: nn.Module
    averages: Averages

    def __init__(self, plan: Plan, device: torch.device, ranks: Ranks) -> None:
        self.plan, self.recipe, self.device, self.ranks = plan, plan.recipe, device, ranks
        self.watch = FiniteWatch(plan.recipe.train.bad_in_a_row)
        self.seen = self.step = 0
        self.elapsed = 0.0

    def spent(self, now: float) -> float:
        """Return the share of the budget spent after `now` seconds of training in this process."""
        return share_spent(self.recipe.train, self.seen, self.elapsed + now)

    def state(self, now: float = 0.0) -> dict[str, Any]:
        """Return what a checkpoint holds beside tensors, after `now` seconds of training in this process."""
        return {
            "seen": self.seen,
            "step": self.step,
            "elapsed": self.elapsed + now,
            "skipped": self.watch.total,
            "recipe": self.recipe.to_json(),
        }

    def take_counts(self, state: Mapping[str, Any]) -> None:
        """Take over the counts of a checkpoint's `state`."""
        self.seen, self.step, self.elapsed, self.watch.total = (
            state[name] for name in ("seen", "step", "elapsed", "skipped")
        )

    @abstractmethod
    def advance(self, spent: float) -> bool:
        """Take one step; return whether it was finite, hence taken."""

    @abstractmethod
    def record(self, now: float, spent: float) -> dict[str, Any]:
        """Return a log record of everything since the last one; `now` in seconds of this process."""

    @abstractmethod
    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return every tensor of the state, grouped by file."""

    @abstractmethod
    def load(self, saved: checkpoint.Checkpoint) -> None:
        """Take over the state of a checkpoint."""
