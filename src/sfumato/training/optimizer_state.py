"""The state of an optimiser as flat groups of tensors, so that a checkpoint holds no pickled objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer


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
