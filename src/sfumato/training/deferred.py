"""Steps that settle on the device whether they are taken, and tell the host one step later.

To ask "was this step finite?" before moving the weights, the host waits for the backward pass, and then the device
waits for the host. On a GPU the answer is used where it is, so nobody waits:

    optimisers   found_inf = 1 leaves weights and state as they were (`found_inf` of Muon, of fused Adam and AdamW)
    averages     move by a share of 0
    statistics   of BatchNorm are the old ones (`torch.where`)
    log          a skipped step adds zeros

The host reads the answer when the next step is on its way, to count and to give up; what a step changes is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from sfumato.training.muon import Muon
from sfumato.training.steps import FiniteWatch


@dataclass(frozen=True)
class Question:
    """A step about which the host has not been told.

    Attributes:
        step: Number of the step, from 1.
        samples: Positions of its samples.
        good: Whether it was finite, a bool () that the host can read.
        arrived: Waits until `good` is there.
        taken_back: Corrects the host's own counts if it was not.
    """

    step: int
    samples: range
    good: Tensor
    arrived: Callable[[], None]
    taken_back: Callable[[], None]


def can_wait(device: torch.device, optimizers: Sequence[Optimizer]) -> bool:
    """Return whether steps on a device may be settled there: on a GPU, where every optimiser can be told to skip.

    Arguments:
        device: Device that trains. On a CPU the answer is at hand and nobody waits for it.
        optimizers: Optimisers of the run.
    """
    return device.type == "cuda" and all(skips(optimizer) for optimizer in optimizers)


def skips(optimizer: Optimizer) -> bool:
    """Return whether an optimiser leaves everything as it is where its `found_inf` is 1."""
    fused = isinstance(optimizer, (Adam, AdamW)) and bool(optimizer.defaults["fused"])
    return fused or isinstance(optimizer, Muon)


class Deferred:
    """Take steps whose answer the host reads later.

    Arguments:
        watch: Told of every step when its answer is there.
        optimizers: For all of which `skips` holds.
    """

    def __init__(self, watch: FiniteWatch, optimizers: Sequence[Optimizer]) -> None:
        self.watch, self.optimizers = watch, optimizers
        self.open: Question | None = None

    def keep_if(self, good: Tensor, statistics: Sequence[Tensor], before: Sequence[Tensor]) -> None:
        """Set running statistics back to those before the step, unless it is good; decided on the device."""
        for now, old in zip(statistics, before):
            now.copy_(torch.where(good, now, old))

    def take(
        self,
        good: Tensor,
        step: int,
        samples: range,
        move: Callable[[], tuple[Tensor, Tensor]],
        take_back: Callable[[Tensor], None],
    ) -> bool:
        """Take a step or leave everything as it is, decided on the device; return whether the step before was taken.

        Arguments:
            good: Whether to take it, a bool ().
            step: Number of the step, from 1.
            samples: Positions of its samples.
            move: Moves weights, averages and log; returns what `take_back` needs, and whether the step was taken.
            take_back: Corrects the host's own counts if the step turns out not to have been taken.
        """
        bad = (~good).float()
        for optimizer in self.optimizers:
            optimizer.found_inf = bad  # type: ignore[attr-defined]
        noted, taken = move()
        for optimizer in self.optimizers:
            del optimizer.found_inf  # type: ignore[attr-defined]
        self.settle()
        self.open = Question(step, samples, *sent(taken), lambda: take_back(noted))
        return self.watch.run == 0

    def settle(self) -> None:
        """Wait for the answer about the last step, if that is open, and count it."""
        question, self.open = self.open, None
        if question is None:
            return
        question.arrived()
        good = bool(question.good)
        if not good:
            question.taken_back()
        self.watch.record(good, question.step, question.samples)

    def forget(self) -> None:
        """Drop the open question: the run goes back to a checkpoint."""
        self.open = None


def sent(answer: Tensor) -> tuple[Tensor, Callable[[], None]]:
    """Send an answer, a bool (), to the host without waiting for it; return it there, and what waits until it is."""
    if answer.device.type != "cuda":
        return answer.clone(), lambda: None
    there = torch.empty((), dtype=torch.bool, pin_memory=True)
    there.copy_(answer, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return there, event.synchronize
