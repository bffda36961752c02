"""One network divided over several ranks, for those that outgrow one device (`train.shard=true`).

With N ranks each keeps 1/N of every weight, gradient, average and optimiser state (torch's FSDP2). A block's weights
are gathered just before it runs, forwards and backwards, and dropped after; its gradients are summed and scattered.
The arithmetic is that of copies (`training.replicas`), so is the result up to the order of additions.

A checkpoint is the same as without: tensors are gathered one at a time and the first rank keeps them, on its CPU. A run
may go on with another number of ranks, or with copies. Elementwise work, such as an average of weights, is done on each
rank's own pieces.

References:
    Zhao et al. PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel. 2023.
    https://arxiv.org/abs/2304.11277
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from sfumato.networks.edm2 import Layer
from sfumato.objectives import Loss
from sfumato.processes.ranks import LaunchError, Ranks
from sfumato.training.muon import Muon
from sfumato.training.replicas import Copies, Step


class Shards(Copies):
    """Hold weights that are divided over ranks.

    Arguments:
        ranks: Processes of the run.
        device: Device of this rank.
        blank: Makes the network anew, whole, for copies with other weights.
    """

    def __init__(self, ranks: Ranks, device: torch.device, blank: Callable[[], nn.Module]) -> None:
        super().__init__(ranks)
        self.mesh, self.blank = init_device_mesh(device.type, (ranks.world,)), blank

    def divide(self, modules: Sequence[nn.Module]) -> None:
        """Divide modules over the ranks, in place, before an optimiser takes their parameters."""
        for module in modules:
            if any(isinstance(m, Layer) for m in module.modules()):
                raise LaunchError(
                    "train.shard=true gathers weights for the moment of their use, and this network (edm2) writes to "
                    "its own in training, which would be lost. Set train.shard=false."
                )
            # pieces of weights cannot be channels_last, so images are made so where a convolution takes them
            module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            for convolution in (m for m in module.modules() if isinstance(m, nn.Conv2d)):
                convolution.register_forward_pre_hook(_channels_last)
            for block in blocks(module):
                fully_shard(block, mesh=self.mesh)
            fully_shard(module, mesh=self.mesh)

    def check(self, optimizers: Sequence[Optimizer]) -> None:
        """Refuse an optimiser that steps whole matrices."""
        if any(isinstance(o, Muon) for o in optimizers):
            raise LaunchError(
                "train.optimizer=muon steps whole matrices, and train.shard=true divides them. Set train.shard=false, "
                "or train.optimizer=adamw."
            )

    def step(self, model: nn.Module, objective: Callable[..., Loss]) -> nn.Module:
        """Return the step of a model and an objective; its gradients are scattered as it runs."""
        return Step(model, objective)

    def own(self, tensor: Tensor) -> Tensor:
        """Return this rank's piece of a tensor, sharing its memory."""
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor

    def whole(self, tensor: Tensor) -> Tensor:
        """Return a tensor gathered from all ranks, which all call this."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def divided(self, value: Tensor, like: Tensor) -> Tensor:
        """Return a whole tensor divided as another one of its shape is."""
        if not isinstance(like, DTensor) or value.shape != like.shape:
            return value
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)

    def gathered(self, groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Return the first rank's groups of whole tensors, on its CPU; all ranks call this."""
        return {stem: {name: self._kept(t) for name, t in group.items()} for stem, group in groups.items()}

    def _kept(self, tensor: Tensor) -> Tensor:
        """Return a tensor whole, on the CPU of the first rank; nobody else needs it."""
        if not isinstance(tensor, DTensor):
            return tensor
        complete = tensor.full_tensor()
        return complete.cpu() if self.ranks.first else complete.new_empty(0)

    def twin(self, network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
        """Return a copy of a network, whole, with other weights; all ranks call this."""
        made = self.blank()
        made.load_state_dict({name: self.whole(value) for name, value in weights.items()})
        return made


def _channels_last(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return inputs[0].contiguous(memory_format=torch.channels_last), *inputs[1:]


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield what is gathered at once: the innermost elements of a network's lists of blocks."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            for element in child:
                inner = list(blocks(element))
                yield from inner if inner else [element] if any(True for _ in element.parameters()) else []
        else:
            yield from blocks(child)
