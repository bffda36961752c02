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

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from sfumato.networks._spectral import power_states
from sfumato.objectives import Loss
from sfumato.processes.ranks import Ranks


class Step(nn.Module):
    """The forward pass of training as one module, which is what a wrapper of all ranks takes.

    Arguments:
        model: Model that is trained.
        objective: Called with it; its learned numbers, if any, are trained too.
    """

    def __init__(self, model: nn.Module, objective: Callable[..., Loss]) -> None:
        super().__init__()
        self.model = model
        self.owned = objective if isinstance(objective, nn.Module) else None

    def forward(self, objective: Callable[..., Loss], *batch: Tensor | None) -> Loss:
        return objective(self.model, *batch)


class Copies:
    """Where a run's weights are: whole, on every rank. `training.shards` divides them instead.

    Arguments:
        ranks: Processes of the run.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def divide(self, modules: Sequence[nn.Module]) -> None:
        """Divide modules over the ranks, in place, before an optimiser takes their parameters."""

    def check(self, optimizers: Sequence[Optimizer]) -> None:
        """Refuse optimisers that cannot step what a rank has of the weights."""

    def step(self, model: nn.Module, objective: Callable[..., Loss]) -> nn.Module:
        """Return the step of a model and an objective, with its gradients averaged over ranks."""
        step = Step(model, objective)
        if self.ranks.world == 1:
            return step
        with warnings.catch_warnings():  # the option has another name in newer versions of torch; both names work
            warnings.filterwarnings("ignore", message=".*broadcast_buffers")
            return DistributedDataParallel(step, broadcast_buffers=False, gradient_as_bucket_view=True)

    def own(self, tensor: Tensor) -> Tensor:
        """Return what this rank has of a tensor, sharing its memory: for elementwise work."""
        return tensor

    def whole(self, tensor: Tensor) -> Tensor:
        """Return a tensor gathered from all ranks, which all call this."""
        return tensor

    def agreed(self, norm: Tensor, each: Tensor, statistics: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return what all ranks agree on after a backward pass; all of them call this.

        Arguments:
            norm: Gradient norm (), as this rank has it.
            each: Losses per image of this rank (b,).
            statistics: Running statistics of BatchNorm, which become their means over ranks, in place.

        Returns:
            The norm (), and whether it and the losses of all ranks are finite, a bool ().
        """
        norm = self.whole(norm)
        self.ranks.average([statistic for statistic in statistics if statistic.is_floating_point()])
        return norm, self.ranks.everywhere(torch.isfinite(norm) & torch.isfinite(each).all())

    def divided(self, value: Tensor, like: Tensor) -> Tensor:
        """Return a whole tensor divided as another one of its shape is."""
        return value

    def gathered(self, groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Return the first rank's groups of whole tensors, for a checkpoint; all ranks call this."""
        return {stem: dict(group) for stem, group in groups.items()}

    def twin(self, network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
        """Return a copy of a network, whole, with other weights; all ranks call this."""
        made = copy.deepcopy(network)
        made.load_state_dict(weights)
        return made


def quiet(step: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Return the context of a round: only the last one of a step communicates."""
    return step.no_sync() if isinstance(step, DistributedDataParallel) and not last else nullcontext()


def running_statistics(network: nn.Module) -> list[Tensor]:
    """Return what a forward pass moves: means, variances and counts of BatchNorms, and directions of power methods."""
    norms = (m for m in network.modules() if isinstance(m, _BatchNorm))
    running = [s for m in norms for s in (m.running_mean, m.running_var, m.num_batches_tracked) if s is not None]
    return running + power_states(network)


def set_back(statistics: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """Give running statistics the values that they had before a step, in place."""
    for now, old in zip(statistics, before):
        now.copy_(old)
