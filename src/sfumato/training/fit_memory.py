"""What makes a step fast or makes it fit, without changing what it computes.

    compile     torch.compile of the network: on by default on one GPU, where it fuses what is between convolutions; off
                on CPUs, where `networks/_fused.py` does that and a compilation costs minutes
    micro       images in one forward pass: where memory is short the rounds of a batch are halved until they fit; the
                gradients of the rounds add up, so the step is the same but for rounding (dropout masks, which belong to
                a round, and BatchNorm's statistics excepted)

What was chosen is printed when a run starts and recorded in its recipe.json.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from sfumato.runs.plan import Plan
from sfumato.runs.recipe import Recipe

T = TypeVar("T")
SHORT = ("out of memory", "can't allocate memory", "not enough memory")  # how backends without a class of error say it


def compiles(plan: Plan, device: torch.device, world: int) -> bool:
    """Return whether the network is compiled: as `train.compile` says, and if it leaves that open, on one GPU."""
    recipe = plan.recipe
    if plan.kind.paired:
        return False  # two networks that step in turn are compiled by nobody yet
    if recipe.train.compile != "auto":
        return recipe.train.compile == "on"
    return device.type == "cuda" and world == 1


def compile_network(network: nn.Module, recipe: Recipe) -> None:
    """Compile a network in place; names of its weights stay. If nobody asked for it, what cannot be compiled is not."""
    if recipe.train.compile == "auto":
        import torch._dynamo

        torch._dynamo.config.suppress_errors = True
    network.compile()


def short_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a GPU or in a CPU's allocator."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in said for words in SHORT)
    )


def fitting(
    take: Callable[[int | None], T],
    micro: int | None,
    share: int,
    *,
    may_cut: bool,
    undo: Callable[[], None],
    tell: Callable[[str], None],
) -> tuple[T, int | None]:
    """Take a step's rounds, in smaller ones if memory is short.

    Arguments:
        take: Takes all rounds of at most so many images; None for the whole share.
        micro: What to begin with.
        share: Images of this process in a step.
        may_cut: Whether a batch may be cut into smaller rounds.
        undo: Removes what a failed attempt has left.
        tell: Told of every cut.

    Returns:
        What `take` returned, and the size of rounds that fitted.

    Raises:
        torch.OutOfMemoryError, RuntimeError: If one image does not fit, or the batch must not be cut.

    >>> def take(micro):
    ...     if (micro or 64) > 20:
    ...         raise RuntimeError("out of memory")
    ...     return "taken"
    >>> fitting(take, None, 64, may_cut=True, undo=lambda: None, tell=print)
    Memory is short: rounds of 32 images instead of 64.
    Memory is short: rounds of 16 images instead of 32.
    ('taken', 16)
    """
    while True:
        try:
            return take(micro), micro
        except (RuntimeError, MemoryError) as error:
            now = min(share, micro or share)
            if not short_of_memory(error) or not may_cut or now <= 1:
                raise
        undo()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        micro = -(-now // 2)
        tell(f"Memory is short: rounds of {micro} images instead of {now}.")
