"""Many images of one class by several makers, block beside block: a maker that repeats itself is seen at a glance.

Fidelity can be judged on one image, variety only on many of one kind. The same class, as many images of each maker and
as many of the training set, all as they came.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sfumato.pictures._ask import seeds_of
from sfumato.report.blocks import blocks
from sfumato.report.sheet import choice
from sfumato.runs.resolve import load_data
from sfumato.runs.run import Run
from sfumato.sources import class_named


def diversity(
    run: Run,
    *,
    against: str = "",
    label: str = "",
    each: int = 24,
    across: int = 4,
    first: int = 0,
    root: Path | None = None,
    device: str = "cpu",
) -> Image.Image:
    """Many images of one class by this run, by others and of the training set: who repeats itself?

    Arguments:
        run: A trained run.
        against: Directories of other runs on the same data, separated by commas, e.g. of a GAN.
        label: Name or number of the class; the first if empty.
        each: Images of every maker.
        across: Images per row of a block, a divisor of each.
        first: First seed, >= 0.
        root: Folder of the datasets; None for SFUMATO_DATA or the cache.
        device: Torch device that computes.
    """
    seeds = seeds_of(each, first)
    runs = [run, *(Run.open(place.strip()) for place in against.split(",") if place.strip())]
    chosen = class_named(label or 0, run.classes) if run.classes else None
    kind = "" if chosen is None else run.classes[chosen]
    data = load_data(run.recipe, "train", root)
    data = data.take(len(data), seed=0)
    real = data.images
    if chosen is not None and data.labels is not None:
        real = real[data.labels == chosen]
    if len(real) < each:
        raise ValueError(f"{data.name} train has {len(real)} images of this class; got each = {each}.")
    sides: dict[str, Tensor] = {}
    words = []
    for one in runs:
        if one.classes != run.classes or one.recipe.shape != run.recipe.shape:
            raise ValueError(
                f"{one.path} makes images of other classes or of another shape than {run.path}: {one.recipe.shape}, "
                f"{len(one.classes)} classes against {run.recipe.shape}, {len(run.classes)}. A diversity sheet "
                "compares runs on one set of data."
            )
        asked = None if chosen is None else torch.full((each,), chosen)
        name = f"{one.path.name} ({len(sides) + 1})" if one.path.name in sides else one.path.name
        sides[name] = one.source(device=device)(seeds, asked)
        words.append(f"{name}: {one.making().sentence}")
    sides["training images"] = real[:each]
    caption = f"{choice(seeds, False)} {' '.join(words)} Training images: the first of a seeded draw."
    return blocks(sides, across, title=f"{run.title}: {kind or data.name}", caption=caption)
