"""Blocks of images side by side, a block of columns each: makers, settings, or real images beside generated ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from sfumato.report._canvas import Frame, draw


def check_rows(count: int, across: int, what: str = "images") -> None:
    """Refuse a block whose rows are not full.

    Raises:
        ValueError: If `across` is no divisor of the count.
    """
    if across < 1 or count % across:
        raise ValueError(f"The {what} fill rows of `across` images; got {count} {what} for rows of {across}.")


def blocks(
    sides: Mapping[str, Tensor],
    across: int,
    *,
    row_labels: Sequence[str] = (),
    apart: bool = True,
    title: str = "",
    caption: str = "",
) -> Image.Image:
    """Put as many images of each side beside one another.

    Arguments:
        sides: Name of a block -> its images along rows, uint8 (B, C, H, W), the same shape for all.
        across: Images per row of a block, a divisor of B.
        row_labels: One label per row, for example class names; () for none.
        apart: Whether a wider gap parts the blocks.
        title: Text above the sheet.
        caption: Text below it.

    Returns:
        RGB picture.

    Raises:
        ValueError: If the shapes differ, or the images do not fill the rows.
    """
    shapes = {name: tuple(images.shape) for name, images in sides.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"Blocks side by side hold as many images each, of one shape; got {shapes}.")
    count, *shape = next(iter(shapes.values()))
    check_rows(count, across)
    rows = [images.cpu().reshape(count // across, across, *shape) for images in sides.values()]
    gap = across if apart else 0
    frame = Frame(title=title, rows=row_labels, columns=list(sides), caption=caption.strip(), block=gap)
    return draw(torch.stack(rows, 1).flatten(0, 2), across * len(rows), frame)[0]
