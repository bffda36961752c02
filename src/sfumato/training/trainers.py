"""Which trainer takes a run's steps: chosen by what its objective says it trains.

The loop knows a trainer by what is in `steps.Steps`: budget, log, checkpoints and sheets are the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from sfumato.data.dataset import Dataset
from sfumato.data.streaming import Stream
from sfumato.processes.ranks import Ranks
from sfumato.runs.plan import Plan
from sfumato.training.adversarial import AdversarialTrainer
from sfumato.training.latents import Encoded
from sfumato.training.steps import Steps
from sfumato.training.trainer import Trainer

TRAINERS: dict[str, Callable[[Plan, Dataset | Stream | Encoded, torch.device, Ranks], Steps]] = {
    "denoiser": Trainer,
    "classifier": Trainer,
    "generator": AdversarialTrainer,
    "autoencoder": Trainer,
    "joint": Trainer,
}


def trainer_of(plan: Plan, data: Dataset | Stream | Encoded, device: torch.device, ranks: Ranks = Ranks()) -> Steps:
    """Return the trainer of a plan.

    Arguments:
        plan: The plan of the resolved recipe to train.
        data: Images of the training split, or their latents.
        device: Device to train on.
        ranks: The processes that train together; one unless given.
    """
    return TRAINERS[plan.kind.name](plan, data, device, ranks)
