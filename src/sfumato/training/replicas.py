"""One network on several ranks: every rank holds a copy, and a step's gradients are summed over them.

Each rank sums its loss over its own share of the batch and divides by the batch of the *recipe*. The gradient of the
step is the sum of these over ranks, whatever the shares are, so it is that of a single process up to the order of
additions. torch's DistributedDataParallel does this while the backward pass still runs. It averages over ranks, so
losses are multiplied by their number; it is kept quiet in all rounds but the last.

BatchNorm is the exception: its statistics are those of a round. Its running statistics are averaged over ranks.

References:
    Li et al. PyTorch Distributed: Experiences on Accelerating Data Parallel Training. 2020.
    https://arxiv.org/abs/2006.15704
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from sfumato.objectives import Loss
from sfumato.training.assemble import option, trains
from sfumato.training.distributed import LaunchError, Ranks
from sfumato.training.recipe import Recipe


class Step(nn.Module):
    """The forward pass of training as one module, which is what a wrapper of all ranks takes.

    Arguments:
        model: What is trained.
        objective: Called with it; its learned numbers, if any, are trained too.
    """

    def __init__(self, model: nn.Module, objective: Callable[..., Loss]) -> None:
        super().__init__()
        self.model = model
        self.owned = objective if isinstance(objective, nn.Module) else None

    def forward(self, objective: Callable[..., Loss], *batch: Tensor | None) -> Loss:
        return objective(self.model, *batch)


def replicate(model: nn.Module, objective: Callable[..., Loss], ranks: Ranks) -> nn.Module:
    """Return the step of a model and an objective, with its gradients summed over ranks.

    Arguments:
        model: On its device.
        objective: As `Step` takes it.
        ranks: Of the run.
    """
    step = Step(model, objective)
    if ranks.world == 1:
        return step
    with warnings.catch_warnings():  # the option has another name in newer versions of torch, and both names work
        warnings.filterwarnings("ignore", message=".*broadcast_buffers")
        return DistributedDataParallel(step, broadcast_buffers=False, gradient_as_bucket_view=True)


def quiet(step: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Return the context of a round: only the last one of a step communicates."""
    return step.no_sync() if isinstance(step, DistributedDataParallel) and not last else nullcontext()


def running_statistics(network: nn.Module) -> list[Tensor]:
    """Return the running means and variances of a network's BatchNorms."""
    norms = (m for m in network.modules() if isinstance(m, _BatchNorm))
    return [s for m in norms for s in (m.running_mean, m.running_var) if s is not None]


def check_shared(recipe: Recipe, ranks: Ranks) -> None:
    """Refuse a recipe whose batch cannot be cut into shares.

    Raises:
        LaunchError: Naming what needs the whole batch.
    """
    if ranks.world == 1:
        return
    ranks.rounds(0, recipe.train.batch, recipe.train.micro)  # refuses a batch of fewer images than ranks
    whole = {
        f"objective={recipe.objective.name} trains a generator against a discriminator, which": trains(recipe)
        not in ("denoiser", "classifier"),
        "objective.coupling=ot pairs images with noises over the batch and": option(recipe.objective, "coupling")
        == "ot",
    }
    for what, found in whole.items():
        if found:
            raise LaunchError(f"{what} needs the whole batch in one place. Start one process, without torchrun.")
