"""How varied the images of one class are: this run, others (a GAN, say), and the training images, side by side."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from sfumato.pictures._ask import numbers, seeds_of
from sfumato.report import diversity as draw
from sfumato.runs.run import Run, load_data


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
) -> Image:
    """Many images of one class by this run, by others and of the training set: who repeats itself?

    Arguments:
        run: The run.
        against: Directories of other runs on the same data, separated by commas, e.g. of a GAN.
        label: Name or number of the class; the first if empty.
        each: Images of every maker.
        across: Images per row of a block, a divisor of each.
        first: First seed.
        root: Data root.
        device: Where to compute.
    """
    seeds = seeds_of(each, first)
    runs = [run, *(Run.open(place.strip()) for place in against.split(",") if place.strip())]
    picked = numbers(run, label)
    kind = None if picked is None else run.classes[picked[0]]
    data = load_data(run.recipe, "train", root)
    data = data.take(len(data), seed=0)
    real = data.images
    if kind is not None and data.labels is not None:
        real = real[data.labels == data.classes.index(kind)]
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
        asked = None if kind is None else torch.full((each,), run.classes.index(kind))
        name = f"{one.path.name} ({len(sides) + 1})" if one.path.name in sides else one.path.name
        sides[name] = one.source(device=device)(seeds, asked)
        words.append(f"{name}: {how(one)}.")
    sides["training images"] = real[:each]
    return draw.diversity(
        sides,
        across,
        seeds=seeds,
        title=kind or data.name,
        caption=f"{' '.join(words)} Training images: the first of a seeded draw.",
    )


def how(run: Run) -> str:
    """Say how a run's images are made, in a few words."""
    making = run.making
    guided = f", guidance {making['guidance']:g}" if making["guidance"] != 1 else ""
    return f"{making['sampler']}{' on ' + making['grid'] if making['grid'] else ''}{guided}"
