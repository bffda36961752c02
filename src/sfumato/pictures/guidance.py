"""The guidance sheet: the same seeds under several weights."""

from __future__ import annotations

import torch
from PIL.Image import Image

from sfumato.pictures._ask import seeds_of
from sfumato.report import sweep as draw
from sfumato.runs.override import override
from sfumato.runs.recipe import RecipeError
from sfumato.runs.run import Run
from sfumato.sources import class_names, classes_named


def guidance(
    run: Run,
    *,
    weights: tuple[float, ...] = (1.0, 2.5, 5.0, 7.0),
    each: int = 2,
    first: int = 0,
    classes: str = "",
    device: str = "cpu",
) -> Image:
    """Classifier-free guidance: a block of columns per weight, the same seeds in each.

    Arguments:
        run: A class-conditional run.
        weights: Guidance weights; 1 is none.
        each: Images of a class in a block.
        first: First seed, >= 0.
        classes: Class names or numbers, a row each; all if empty.
        device: Torch device that computes.
    """
    picked = classes_named(classes, run.classes)
    if picked is None:
        raise RecipeError(
            f"{run.recipe.name} was trained without classes, or none was chosen: there is nothing to guide towards."
        )
    plain = run.with_recipe(override(run.recipe, ["sample.guidance=none"]))
    seeds = seeds_of(each * len(picked), first)
    labels = torch.tensor([label for label in picked for _ in range(each)])
    return draw.cfg_sheet(
        plain.diffusion(device=device),
        seeds,
        labels,
        weights,
        across=each,
        row_labels=class_names(picked, run.classes),
        title=run.title,
        caption=plain.making().sentence,
    )
