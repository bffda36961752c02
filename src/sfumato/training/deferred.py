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


@dataclass(frozen=True)
class Question:
    """A step about which the host has not been told.

    Attributes:
        step: Its number.
        samples: Positions it saw.
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
        device: Where training happens. On a CPU the answer is at hand and nobody waits for it.
        optimizers: Of the run.
    """
    return device.type == "cuda" and all(skips(optimizer) for optimizer in optimizers)


def skips(optimizer: Optimizer) -> bool:
    """Return whether an optimiser leaves everything as it is where its `found_inf` is 1."""
    fused = isinstance(optimizer, (Adam, AdamW)) and bool(optimizer.defaults["fused"])
    return fused or isinstance(optimizer, Muon)


def step_if(good: Tensor, optimizers: Sequence[Optimizer]) -> None:
    """Step optimisers, or leave everything as it is; decided on the device.

    Arguments:
        good: Whether to step, a bool ().
        optimizers: For which `skips` holds.
    """
    bad = (~good).float()
    for optimizer in optimizers:
        optimizer.found_inf = bad  # type: ignore[attr-defined]
        optimizer.step()
        del optimizer.found_inf  # type: ignore[attr-defined]


def asked(step: int, samples: range, good: Tensor, taken_back: Callable[[], None]) -> Question:
    """Send an answer to the host, without waiting for it.

    Arguments:
        step: Number of the step.
        samples: Positions it saw.
        good: Whether it was finite, a bool () on the device.
        taken_back: See `Question`.
    """
    if good.device.type != "cuda":
        return Question(step, samples, good.clone(), lambda: None, taken_back)
    there = torch.empty((), dtype=torch.bool, pin_memory=True)
    there.copy_(good, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return Question(step, samples, there, event.synchronize, taken_back)
