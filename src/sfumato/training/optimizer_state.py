"""What every trainer keeps beside its networks: optimisers and their rates, and the share of the budget spent.

Optimiser states are kept as flat groups of tensors, so that a checkpoint holds no pickled objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from sfumato.runs.recipe import Train


def share_spent(train: Train, seen: int, seconds: float) -> float:
    """Return the share of the budget spent: of the images, or of the minutes if the budget is in minutes.

    Arguments:
        train: Says which.
        seen: Images.
        seconds: Of training, over all processes.
    """
    return seen / train.images if train.minutes is None else seconds / (60 * train.minutes)


class Rates:
    """Set the learning rates of optimisers to their base rates times a factor.

    Arguments:
        optimizers: As made, with their base rates.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = tuple(optimizers)
        self.bases = [[group["lr"] for group in o.param_groups] for o in self.optimizers]

    def set(self, factor: float) -> None:
        """Multiply every base rate."""
        for optimizer, bases in zip(self.optimizers, self.bases):
            for group, base in zip(optimizer.param_groups, bases):
                group["lr"] = base * factor


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
        optimizer: Of the same parameters.
        saved: Whole tensors.
        divided: (value, parameter) -> what this process keeps of it, where several divide the parameters.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = divided(value, parameters[int(number)]).clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
