"""Which trainer takes a run's steps: chosen by what its objective says it trains.

The loop knows a trainer by what is in `Steps`: budget, log, checkpoints and sheets are the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sfumato.data.dataset import Dataset
from sfumato.data.streaming import Stream
from sfumato.processes.ranks import Ranks
from sfumato.runs import checkpoint
from sfumato.runs.plan import Plan
from sfumato.runs.recipe import Recipe
from sfumato.training.adversarial import AdversarialTrainer
from sfumato.training.ema import Averages
from sfumato.training.guard import FiniteWatch
from sfumato.training.trainer import Trainer


class Steps(Protocol):
    """What the loop asks of a trainer.

    Attributes:
        recipe: Resolved.
        device: Where it trains.
        ranks: The processes that train together.
        network: What is trained, all of it one module.
        averages: Of its weights.
        watch: Counts steps that are not finite.
        seen: Images, counting skipped steps: the position of the next sample.
        step: Steps, counting skipped ones.
        elapsed: Seconds of training before this process.
    """

    recipe: Recipe
    device: torch.device
    ranks: Ranks
    network: nn.Module
    averages: Averages
    watch: FiniteWatch
    seen: int
    step: int
    elapsed: float

    def spent(self, now: float) -> float: ...

    def advance(self, spent: float) -> bool: ...

    def record(self, now: float, spent: float) -> dict[str, Any]: ...

    def tensors(self) -> dict[str, dict[str, Tensor]]: ...

    def load(self, saved: checkpoint.Checkpoint) -> None: ...


TRAINERS: dict[str, Callable[[Plan, Dataset | Stream, torch.device, Ranks], Steps]] = {
    "denoiser": Trainer,
    "classifier": Trainer,
    "generator": AdversarialTrainer,
}


def trainer_of(plan: Plan, data: Dataset | Stream, device: torch.device, ranks: Ranks = Ranks()) -> Steps:
    """Return the trainer of a recipe.

    Arguments:
        plan: Of the resolved recipe.
        data: The training split.
        device: Where to train.
        ranks: The processes that train together; one unless given.
    """
    return TRAINERS[plan.kind.name](plan, data, device, ranks)
