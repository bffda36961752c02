"""What attributes do: one seed, one or two attributes swept, everything else held."""

from __future__ import annotations

import math

import torch
from PIL import Image

from sfumato.core.condition import Condition
from sfumato.core.find import nearest
from sfumato.data.told.attributes import asked
from sfumato.pictures._ask import seeds_of
from sfumato.report.sheet import sheet
from sfumato.runs.run import Run
from sfumato.sources import class_named, classes_named, in_turn


def attributes(
    run: Run,
    *,
    over: tuple[str, ...] = (),
    points: int = 5,
    spread: float = 1.5,
    n: int = 6,
    to: str = "",
    first: int = 0,
    device: str = "cpu",
) -> Image.Image:
    """Samples while one attribute goes from low to high, a row a seed, or two: one in rows and one in columns.

    Arguments:
        run: A trained run whose model is told attributes.
        over: Names of one or two attributes; the first of the model unless given.
        points: Values of each, at least 2.
        spread: Standard deviations below and above the mean of training at the ends, > 0.
        n: Number of seeds, a row each, where one attribute is swept.
        to: Class of all of them; each class in turn if empty, the first one where two attributes are swept.
        first: First seed.
        device: Torch device that computes.
    """
    rows = run.plan.shape.attributes
    names = [row[0] for row in rows]
    over = over or tuple(names[:1])
    if points < 2 or not 1 <= len(set(over)) == len(over) <= 2 or not spread > 0 or not names:
        raise ValueError(
            f"This picture sweeps one or two attributes, each once, over points >= 2 with spread > 0; got "
            f"{','.join(over) if names else 'no attribute (this model is told none)'}, {points} and {spread:g}."
        )
    if unknown := [name for name in over if name not in names]:
        raise ValueError(nearest("attribute", unknown[0], names))
    ends = torch.linspace(-spread, spread, points).tolist()
    grid = [{over[0]: a, over[-1]: b} for a in ends for b in ends] if len(over) == 2 else [{over[0]: a} for a in ends]
    own = seeds_of(n, first) if len(over) == 1 else [first]
    seeds = [seed for seed in own for _ in grid]
    vector = torch.stack([asked({k: f"{v}sd" for k, v in each.items()}, rows) for each in grid] * len(own))
    each = not to and len(own) > 1
    label = class_named(to or 0, run.classes) if to or (run.classes and not each) else None
    labels = in_turn(seeds, classes_named(None, run.classes) if each else None if label is None else [label])
    images = run.source(device=device)(seeds, Condition(labels, vector))

    def values(name: str) -> list[str]:
        _, mean, deviation, *_ = rows[names.index(name)]
        digits = max(0, 2 - math.floor(math.log10(deviation)))
        return [f"{mean + deviation * end:.{digits}f}" for end in ends]

    return sheet(
        images,
        points,
        row_labels=[f"{over[0]} {value}" for value in values(over[0])]
        if len(over) == 2
        else [f"seed {s}" for s in own],
        column_labels=[f"{over[-1]} {value}" for value in values(over[-1])],
        seeds=seeds,
        title=run.recipe.name,
        caption=f"{' and '.join(over)} from {-spread:g} to {spread:g} standard deviations. {run.making().sentence}",
    )
