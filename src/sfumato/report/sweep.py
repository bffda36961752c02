"""Sweeps: one setting changes from column to column, the seeds stay.

Because noise is addressed by seed, the images of a row start from the same noise; what differs between columns is the
setting alone: guidance weight, sampler, number of steps, training length, model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from sfumato.core.images import ImageSource
from sfumato.guidance.cfg import cfg
from sfumato.report.blocks import blocks, check_rows
from sfumato.report.sheet import choice
from sfumato.sources import Diffusion

WEIGHTS = (1.0, 2.5, 5.0, 7.0)


def sweep(
    sources: Mapping[str, ImageSource],
    seeds: Sequence[int],
    labels: Tensor | None = None,
    *,
    across: int = 1,
    row_labels: Sequence[str] = (),
    title: str = "",
    caption: str = "",
) -> Image.Image:
    """Show the same seeds by several sources, a block of columns per source.

    Arguments:
        sources: column label -> image source.
        seeds: One per image of a block, along rows.
        labels: One class per image, int64 (B,), or None for no class.
        across: Images per row of a block, a divisor of the number of seeds.
        row_labels: One label per row, for example class names; () for none.
        title: Text above the sheet.
        caption: Text that follows the statement on the seeds.

    Returns:
        RGB picture.

    Raises:
        ValueError: If the seeds do not fill the rows.
    """
    check_rows(len(seeds), across, "seeds")
    made = {name: source(seeds, labels) for name, source in sources.items()}
    words = (
        f"{choice(seeds, False).removesuffix('.')}, the same in every {'block' if across > 1 else 'column'}. {caption}"
    )
    return blocks(made, across, row_labels=row_labels, apart=across > 1, title=title, caption=words)


def cfg_sheet(
    source: Diffusion,
    seeds: Sequence[int],
    labels: Tensor,
    weights: Sequence[float] = WEIGHTS,
    *,
    across: int = 1,
    row_labels: Sequence[str] = (),
    title: str = "",
    caption: str = "",
) -> Image.Image:
    """Show what the guidance weight does to the same seeds.

    Arguments:
        source: A class-conditional model that is not guided yet (`sample.guidance` = 1).
        seeds: One per image of a block.
        labels: One class per image, int64 (B,).
        weights: Guidance weights w; 1 is none.
        across: Images per row of a block.
        row_labels: One label per row; () for none.
        title: Text above the sheet.
        caption: Text that follows the statement on the seeds.

    Returns:
        RGB picture, a block of columns per weight.
    """
    sources: dict[str, ImageSource] = {}
    for w in weights:
        guided = copy.copy(source)
        guided.denoiser = cfg(source.denoiser, w)
        sources[f"w = {w:g}"] = guided
    words = f"w: weight of classifier-free guidance, 1 is none. {caption}".strip()
    return sweep(sources, seeds, labels, across=across, row_labels=row_labels, title=title, caption=words)
