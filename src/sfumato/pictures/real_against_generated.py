"""Real images at the left, generated ones at the right, row by class: the honest side-by-side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sfumato.pictures._ask import MOST_ROWS, seeds_of
from sfumato.report.blocks import blocks
from sfumato.report.sheet import choice
from sfumato.runs.resolve import load_data
from sfumato.runs.run import Run
from sfumato.sources import class_names, classes_named


def real_against_generated(
    run: Run,
    *,
    each: int = 8,
    first: int = 0,
    classes: str = "",
    split: str = "test",
    root: Path | None = None,
    device: str = "cpu",
) -> Image.Image:
    """Real images at the left, generated ones at the right, a row per class.

    Arguments:
        run: A trained run.
        each: Images of a class on either side.
        first: First seed of the generated ones.
        classes: Class names or numbers; all if empty.
        split: Part of the data that the real images are taken from: train, val or test.
        root: Folder of the datasets; None for SFUMATO_DATA or the cache.
        device: Torch device that computes.
    """
    data = load_data(run.recipe, split, root)
    data = data.take(len(data), seed=0)
    picked = classes_named(classes, run.classes)
    if picked is None or data.labels is None:
        rows: list[int] = list(range(8))
        real, labels, names = data.images[: 8 * each], None, []
    else:
        rows = picked[:MOST_ROWS]
        real = torch.cat([data.images[data.labels == label][:each] for label in rows])
        labels, names = torch.tensor(rows).repeat_interleave(each), class_names(rows, run.classes)
    if len(real) != each * len(rows):
        raise ValueError(f"{data.name} {split} has not {each} images of every class. Take a smaller `each`.")
    seeds = seeds_of(each * len(rows), first)
    made = run.source(device=device)(seeds, labels)
    return drawing(
        real,
        made,
        each,
        seeds=seeds,
        row_labels=names,
        names=(f"real ({split})", "generated"),
        title=run.title,
        caption=f"Real: the first of a seeded draw. {run.making().sentence}",
    )


def drawing(
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
        seeds: Seeds of the generated images.
        curated: Whether the generated images were picked among others.
        row_labels: One label per row; () for none.
        names: Names of the real and of the generated side.
        title: Text above the sheet.
        caption: Text that follows the statement on the seeds.

    Returns:
        RGB picture.

    Raises:
        ValueError: If the two sides differ in shape or do not fill the rows.
    """
    said = choice(seeds, curated)
    said = said if curated else said[:1].lower() + said[1:]
    words = f"{names[1].capitalize()}: {said} {caption}" if said else caption
    return blocks(dict(zip(names, (real, generated))), across, row_labels=row_labels, title=title, caption=words)
