"""Images made by several ranks: blocks of seeds are dealt in turn, and the result is that of one process.

A block of `source.batch` seeds is computed whole on one rank, so an image has the same neighbours, hence the same
rounding, for every number of ranks. Nothing but finished images travels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sfumato.core.images import NonFiniteError
from sfumato.sources import Maker
from sfumato.training.distributed import Ranks


def images_of_all(
    ranks: Ranks,
    source: Maker,
    seeds: Sequence[int],
    labels: Tensor | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Make images on all ranks together.

    Arguments:
        ranks: Of the run; all of them call this with the same arguments.
        source: Makes the images of a block.
        seeds: One per image.
        labels: int64 (B,) or None.
        progress: Told of the images finished by all ranks, after each block of this one.

    Returns:
        uint8 images (B, C, H, W) on the CPU of every rank, in the order of the seeds.

    Raises:
        NonFiniteError: On every rank, if an image of any of them holds NaN or infinity.
    """
    done, trouble = [], None
    for part in ranks.deal(len(seeds), source.batch):
        try:
            done.append((part, source(seeds[part], None if labels is None else labels[part])))
        except NonFiniteError as error:
            trouble = error
            break
        if progress is not None:  # while this rank made a block, so did the others
            first = part.start - ranks.rank * source.batch
            progress(min(len(seeds), first + ranks.world * source.batch) - first)
    found = ranks.gather((done, trouble))
    for _, found_bad in found:
        if found_bad is not None:
            raise found_bad
    blocks = sorted((block for blocks, _ in found for block in blocks), key=lambda block: int(block[0].start))
    return torch.cat([images for _, images in blocks]) if blocks else source(seeds, labels)
