"""Real images at the left, generated ones at the right, row by class: the honest side-by-side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from sfumato.report._canvas import Frame, draw
from sfumato.report.sheet import choice


def real_against_generated(
    real: Tensor,
    generated: Tensor,
    across: int = 8,
    *,
    seeds: Sequence[int] | None = None,
    curated: bool = False,
    row_labels: Sequence[str] = (),
    names: tuple[str, str] = ("real", "generated"),
    title: str = "",
    caption: str = "",
) -> Image.Image:
    """Put real and generated images side by side.

    Arguments:
        real: uint8, shape (B, C, H, W), along rows.
        generated: The same shape; image i of the same class as real[i], if there are classes.
        across: Images per row on either side, a divisor of B.
        seeds: Of the generated images.
        curated: Whether the generated images were picked among others.
        row_labels: One per row.
        names: Of the two sides.
        title: Above the sheet.
        caption: Follows the statement on the seeds.

    Returns:
        RGB picture.

    Raises:
        ValueError: If the two sides differ in shape or do not fill the rows.
    """
    if real.shape != generated.shape:
        raise ValueError(
            f"Both sides hold images of one shape: got {tuple(real.shape)} real and {tuple(generated.shape)} generated."
        )
    if across < 1 or len(real) % across:
        raise ValueError(f"The images fill rows of `across` images; got {len(real)} images for rows of {across}.")
    shape = (len(real) // across, across, *real.shape[1:])
    images = torch.cat((real.cpu().reshape(shape), generated.cpu().reshape(shape)), 1).flatten(0, 1)
    said = choice(seeds, curated)
    frame = Frame(
        title=title,
        rows=row_labels,
        columns=names,
        caption=f"{names[1].capitalize()}: {said[:1].lower() + said[1:] if not curated else said} {caption}".strip()
        if said
        else caption,
        block=across,
    )
    return draw(images, 2 * across, frame)[0]
