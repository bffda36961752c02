"""Real images beside generated ones, row by class."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL.Image import Image

from sfumato.pictures._ask import MOST_ROWS, made_by, numbers, seeds_of
from sfumato.report import real_against_generated as draw
from sfumato.runs.run import Run, load_data


def real_against_generated(
    run: Run,
    *,
    each: int = 8,
    first: int = 0,
    classes: str = "",
    split: str = "test",
    root: Path | None = None,
    device: str = "cpu",
) -> Image:
    """Real images at the left, generated ones at the right, a row per class.

    Arguments:
        run: The run.
        each: Images of a class on either side.
        first: First seed of the generated ones.
        classes: Class names or numbers; all if empty.
        split: Which real images.
        root: Data root.
        device: Where to compute.
    """
    data = load_data(run.recipe, split, root)
    data = data.take(len(data), seed=0)
    picked = numbers(run, classes)
    if picked is None or data.labels is None:
        rows: list[int] = list(range(8))
        real, labels, names = data.images[: 8 * each], None, []
    else:
        rows = picked[:MOST_ROWS]
        real = torch.cat([data.images[data.labels == label][:each] for label in rows])
        labels, names = torch.tensor(rows).repeat_interleave(each), [run.classes[label] for label in rows]
    if len(real) != each * len(rows):
        raise ValueError(f"{data.name} {split} has not {each} images of every class. Take a smaller `each`.")
    seeds = seeds_of(each * len(rows), first)
    made = run.source(device=device)(seeds, labels)
    return draw.real_against_generated(
        real,
        made,
        each,
        seeds=seeds,
        row_labels=names,
        names=(f"real ({split})", "generated"),
        title=run.recipe.name,
        caption=f"Real: the first of a seeded draw. {made_by(run)}",
    )
