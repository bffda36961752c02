"""What makes a step fast or makes it fit, without changing what it computes.

    compile     torch.compile of the network: on by default on one GPU, where it fuses what is between convolutions; off
                on CPUs, where `networks/_fused.py` does that and a compilation costs minutes
    micro       images in one forward pass: where memory is short the rounds of a batch are halved until they fit, by
                the estimate of `runs.memory` before the first step, and where a step fails all the same; the gradients
                of the rounds add up, so the step is the same but for rounding (dropout masks, which belong to a round,
                and BatchNorm's statistics excepted)

What was chosen is printed when a run starts and recorded in its recipe.json.
"""

from __future__ import annotations

import torch
from torch import nn

from sfumato.progress import say
from sfumato.runs.memory import PROGRAM, peaks, surely_fits
from sfumato.runs.plan import Plan
from sfumato.runs.recipe import Recipe

SHORT = ("out of memory", "can't allocate memory", "not enough memory")  # how backends without a class of error say it


def compiles(plan: Plan, device: torch.device, world: int) -> bool:
    """Return whether the network is compiled: as `train.compile` says, and if it leaves that open, on one GPU."""
    recipe = plan.recipe
    if plan.kind.whole:
        return False  # two networks in one step are compiled by nobody yet
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


def fitting(plan: Plan, device: torch.device, images: int, data: int, free: int) -> int:
    """Return how many of a round's images fit into free memory: `images`, or what is left after halving; say so.

    Arguments:
        plan: With its shape.
        device: Device that trains.
        images: Number of images in a round.
        data: Bytes of the training images in memory.
        free: Bytes that this process may still take, its data and the program being there.
    """
    if surely_fits(plan, images, free):
        return images
    held = PROGRAM + data if device.type == "cpu" else 0
    micro = images
    while micro > 1 and peaks(plan, device.type, images=micro, data=data).step - held > free:
        micro = -(-micro // 2)
    if micro < images:
        say(
            f"A step of {images} images would take more than the {free / 2**30:.1f} GiB of free memory: rounds of "
            f"{micro} images instead."
        )
    return micro


def halved(error: Exception, images: int, may_cut: bool) -> int:
    """Return how many images a round holds after one of `images` ran out of memory, and say so.

    Arguments:
        error: Why the round failed.
        images: Number of images in the round.
        may_cut: Whether a batch may be cut into smaller rounds.

    Raises:
        Exception: `error`, if it is not about memory, one image does not fit, or the batch must not be cut.

    >>> halved(RuntimeError("out of memory"), 64, may_cut=True)
    Memory is short: rounds of 32 images instead of 64.
    32
    """
    if not short_of_memory(error) or not may_cut or images <= 1:
        raise error
    micro = -(-images // 2)
    say(f"Memory is short: rounds of {micro} images instead of {images}.")
    return micro


def release(device: torch.device) -> None:
    """Give what a failed round has left in torch's own store back to a GPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
