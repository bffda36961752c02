"""Many images of one class by several makers, block beside block: a maker that repeats itself is seen at a glance.

Fidelity can be judged on one image, variety only on many of one kind. The same class, as many images of each maker and
as many of the training set, all as they came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from sfumato.report._canvas import Frame, draw
from sfumato.report.sheet import choice


def diversity(
    sides: Mapping[str, Tensor],
    across: int = 4,
    *,
    seeds: Sequence[int] | None = None,
    title: str = "",
    caption: str = "",
) -> Image.Image:
    """Put the images of several makers side by side, a block of columns each.

    Arguments:
        sides: Name of a maker -> its images, uint8 (B, C, H, W), the same shape for all.
        across: Images per row of a block, a divisor of B.
        seeds: Of the samples, the same for every maker.
        title: Above the sheet.
        caption: Follows the statement on the seeds.

    Returns:
        RGB picture.

    Raises:
        ValueError: If the shapes differ, or the images do not fill the rows.
    """
    shapes = {name: tuple(images.shape) for name, images in sides.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"A diversity sheet holds as many images of every maker, of one shape; got {shapes}.")
    count, *shape = next(iter(shapes.values()))
    if across < 1 or count % across:
        raise ValueError(f"The images fill rows of `across` images; got {count} images for rows of {across}.")
    blocks = [images.cpu().reshape(count // across, across, *shape) for images in sides.values()]
    frame = Frame(title=title, columns=list(sides), caption=f"{choice(seeds, False)} {caption}".strip(), block=across)
    return draw(torch.stack(blocks, 1).flatten(0, 2), across * len(blocks), frame)[0]
