"""Work on many seeds done by several ranks: blocks are dealt in turn, and the result is that of one process.

A block of `source.batch` seeds is computed whole on one rank, so an image has the same neighbours, hence the same
rounding, for every number of ranks. Nothing but results travels, once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from sfumato.core.condition import Label
from sfumato.processes.ranks import Ranks
from sfumato.sources import Maker

T = TypeVar("T")


def blocks_of_all(
    ranks: Ranks, count: int, block: int, work: Callable[[slice], T], progress: Callable[[int], None] | None = None
) -> list[T]:
    """Do work on blocks of `count` things, each on one of the ranks.

    Arguments:
        ranks: The processes of the run; all of them call this with the same numbers.
        count: How many things there are.
        block: How many are worked on at once.
        work: Function of the positions of a block; what it returns is sent to all ranks.
        progress: Called with the number of things done by all ranks, after each block of this one.

    Returns:
        The results of all blocks in order, on every rank.

    Raises:
        ValueError: On every rank, if `work` raised it on any.
    """
    done: list[tuple[int, T]] = []
    trouble: ValueError | None = None
    for part in ranks.deal(count, block):
        try:
            done.append((part.start, work(part)))
        except ValueError as error:  # the others must hear of it, or they wait
            trouble = error
            break
        if progress is not None:  # while this rank worked on a block, so did the others
            first = part.start - ranks.rank * block
            progress(min(count, first + ranks.world * block) - first)
    found = ranks.gather((done, trouble))
    for _, error_there in found:
        if error_there is not None:
            raise error_there
    return [result for _, result in sorted((b for blocks, _ in found for b in blocks), key=lambda b: b[0])]


def images_of_all(
    ranks: Ranks,
    source: Maker,
    seeds: Sequence[int],
    labels: Label | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Make images on all ranks together.

    Arguments:
        ranks: The processes of the run; all of them call this with the same arguments.
        source: Makes the images of a block.
        seeds: One seed per image.
        labels: What each image is made under, of B images; None for nothing.
        progress: Called with the number of images finished by all ranks, after each block of this one.

    Returns:
        uint8 images (B, C, H, W) on the CPU of every rank, in the order of the seeds.

    Raises:
        NonFiniteError: On every rank, if an image of any of them holds NaN or infinity.
    """

    def make(part: slice) -> Tensor:
        return source(seeds[part], None if labels is None else labels[part])

    blocks = blocks_of_all(ranks, len(seeds), source.batch, make, progress)
    return torch.cat(blocks) if blocks else source(seeds, labels)
