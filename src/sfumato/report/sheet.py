"""The sheet: many samples at once, as they came.

A sheet shows what a model does only if nobody chose among its images. So a sheet says which seeds made it, in its own
caption, and one whose images were picked says CURATED.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from sfumato.report._canvas import Frame, draw


def sheet(
    images: Tensor,
    columns: int = 8,
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    curated: bool = False,
    title: str = "",
    caption: str = "",
    zoom: int | None = None,
) -> Image.Image:
    """Lay images out in rows, labelled, with a caption that says how they were chosen.

    Arguments:
        images: uint8, shape (B, C, H, W).
        columns: Number of images in a row, >= 1.
        row_labels: One label per row, for example class names; () for none.
        column_labels: One label per column; () for none.
        seeds: The seed of each image, (B,); None for images that are not samples.
        curated: Whether somebody or something picked these images among others.
        title: Text above the sheet.
        caption: Text that follows the statement on the seeds.
        zoom: Picture pixels per image pixel; None for the smallest that is legible.

    Returns:
        RGB picture.

    Raises:
        TypeError: If the images are not uint8.
        ValueError: If the shape, the labels or the seeds do not fit the images.
    """
    if seeds is not None and len(seeds) != len(images):
        raise ValueError(f"One seed per image: got {len(seeds)} seeds for {len(images)} images.")
    words = f"{choice(seeds, curated)} {caption}".strip()
    frame = Frame(title=title, rows=row_labels, columns=column_labels, caption=words)
    return draw(images, columns, frame, zoom=zoom)[0]


def choice(seeds: Sequence[int] | None, curated: bool) -> str:
    """Say how images were chosen. Only seeds in a row are uncurated: others may have been picked by their images.

    >>> choice(range(64), False), choice([3, 7, 8, 9], True), choice(None, False)
    ('Uncurated, seeds 0..63.', 'CURATED, seeds 3, 7..9.', '')
    >>> choice([3, 7, 19], False), choice([0, 1, 2] * 2, False)
    ('Chosen seeds 3, 7, 19.', 'Uncurated, seeds 0..2 (each 2 times).')
    """
    if seeds is None:
        return "CURATED." if curated else ""
    distinct = sorted({int(s) for s in seeds})
    if curated:
        return f"CURATED, {name_seeds(seeds)}."
    in_a_row = distinct == list(range(distinct[0], distinct[0] + len(distinct))) if distinct else True
    return f"{'Uncurated,' if in_a_row else 'Chosen'} {name_seeds(seeds)}."


def name_seeds(seeds: Sequence[int]) -> str:
    """Name seeds shortly: runs as ranges, many runs by their number and ends.

    >>> name_seeds([5]), name_seeds([0, 1, 2, 9]), name_seeds(range(0, 40, 2))
    ('seed 5', 'seeds 0..2, 9', '20 seeds between 0 and 38')
    >>> name_seeds([0, 1, 2, 3] * 2)
    'seeds 0..3 (each 2 times)'
    """
    distinct = list(dict.fromkeys(int(s) for s in seeds))
    times, rest = divmod(len(seeds), len(distinct)) if distinct else (1, 0)
    runs: list[list[int]] = []
    for seed in distinct:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    if len(runs) > 8:
        named = f"{len(distinct)} seeds between {min(distinct)} and {max(distinct)}"
    else:
        named = "seed" + "s" * (len(distinct) > 1) + " "
        named += ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in runs)
    return named + (f" (each {times} times)" if times > 1 and not rest else "")
