"""What a run's model is told: from the data and from what a person names to the `Condition` that it was trained with.

Data holds attributes as they are; a model is told them less their mean and over their deviation, which the run recorded
when it started (`Shape.attributes`). Everything that makes images for a score or a sheet asks here which condition each
image gets: classes in turn, and with attributes or an image beside, those of real images in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from sfumato.core.condition import Condition, Label, part_of
from sfumato.core.images import to_float, to_uint8
from sfumato.core.task import Task, TaskError
from sfumato.data.dataset import Dataset
from sfumato.data.order import ranking
from sfumato.data.streaming import Stream
from sfumato.data.told.attributes import asked, standard, unseen
from sfumato.data.told.beside import condition_of, split_kind, told_image, twin
from sfumato.runs.plan import Plan
from sfumato.runs.recipe import Recipe, RecipeError

ORDER = 0  # the seed of the order in which real images lend their conditions


def told(recipe: Recipe, label: Label | None) -> Label | None:
    """Return what a model is told, of what the data holds: no class if it is unlabelled, and standardised attributes.

    Arguments:
        recipe: Resolved.
        label: Classes int64 (B,), or a `Condition` with raw attributes.
    """
    chosen = part_of(label, "label") if recipe.data.labels else None
    if not isinstance(label, Condition):
        return chosen
    assert recipe.shape is not None
    vector = None if label.vector is None else standard(label.vector, recipe.shape.attributes)
    return Condition(chosen, vector, label.image)


def of_real(recipe: Recipe, data: Dataset, rows: Tensor) -> Label | None:
    """Return what a model is told of some real images.

    Arguments:
        recipe: Resolved.
        data: Loaded as the recipe says.
        rows: Places in it, int64 (B,).
    """
    return told(recipe, condition_of(data, None if data.labels is None else data.labels[rows], rows))


def lending(count: int, seeds: Sequence[int]) -> Tensor:
    """Return which of so many real images lends its condition to each seed, int64 (B,)."""
    order = torch.from_numpy(ranking(count, ORDER, 0))
    return order[torch.as_tensor(np.asarray(seeds, dtype=np.int64) % count)]


def lent(recipe: Recipe, data: Dataset | Stream | None, seeds: Sequence[int]) -> Label | None:
    """Return the conditions of real images in a fixed order, one a seed.

    Arguments:
        recipe: Resolved.
        data: The images, loaded as the recipe says.
        seeds: Seeds of the images that are to be made.

    Raises:
        RecipeError: If they are not in memory.
    """
    if not isinstance(data, Dataset):
        raise RecipeError(f"{recipe.name} makes images under the conditions of real ones, which are not at hand.")
    return of_real(recipe, data, lending(len(data), seeds))


def named(
    recipe: Recipe, where: Mapping[str, float | str], labels: Tensor | None, count: int, image: Tensor | None = None
) -> Label | None:
    """Return the condition that a person asks for, the same attributes and image for every image.

    Arguments:
        recipe: Resolved.
        where: Attributes by name; those that are not named are not told.
        labels: Classes int64 (count,), or None.
        count: Number of images.
        image: What the model is told beside, uint8 (c, h, w), at its own size or the model's; None for nothing.

    Raises:
        UnknownNameError, ValueError: For an attribute that it is not told, or an image of another size.
    """
    if not where and image is None:
        return labels
    shape = recipe.shape
    assert shape is not None
    vector = asked(where, shape.attributes).expand(count, -1) if where else None
    if image is None:
        return Condition(labels, vector)
    c, *own = shape.beside or (0, 0, 0)
    if tuple(image.shape) not in (tuple(shape.beside), (c, shape.height, shape.width)):
        wanted = f"{c}x{'x'.join(map(str, own))}" if c else "no image (data.condition=none)"
        raise ValueError(f"This model is told {wanted}; got an image of {'x'.join(map(str, image.shape))}.")
    pixels = told_image(image[None], (shape.height, shape.width))
    return Condition(labels, vector, pixels.expand(count, -1, -1, -1))


def usual_method(made: Plan, task: Task | None = None) -> str:
    """Return the method by which a model restores unless told otherwise.

    Arguments:
        made: Plan of the model.
        task: What happened to the pictures; None for a linear task.

    Returns:
        "told" for a model that is told an image; "dps" for a task that is not linear, as all are of decoded latents.
    """
    if made.recipe.data.condition != "none":
        return "told"
    return "dps" if made.in_latents or not (task is None or task.linear) else "moment"


def measured_label(recipe: Recipe, task: Task, y: Tensor, labels: Tensor | None) -> Label | None:
    """Return what a model is told of measurements: their class, and themselves where it is told such images.

    Arguments:
        recipe: Resolved.
        task: What was done to the pictures.
        y: Measurements, shape (B, *task.measured).
        labels: Classes int64 (B,), or None.

    Raises:
        TaskError: If the model is told an image that the task does not measure.
    """
    shape, told = recipe.shape, recipe.data.condition
    if told == "none":
        return labels
    assert shape is not None
    if tuple(task.measured) == tuple(shape.beside) and task.noise == 0 and split_kind(told)[0] != "pairs":
        codes = torch.from_numpy(ranking(256, ORDER, 0)).to(torch.uint8)  # a picture of every code
        probe = codes.repeat(-(-math.prod(task.shape) // 256))[: math.prod(task.shape)].reshape(1, *task.shape)
        if int((to_uint8(task.apply(to_float(probe))).int() - twin(probe, told).int()).abs().max()) <= 1:
            size = (shape.height, shape.width)
            return Condition(labels, None, told_image(to_uint8(y), size))
    raise TaskError(
        f"This model is told data.condition={told} of a picture, and {task.words} is another measurement. Take the "
        "task that makes it (superres with its factor, or colorize), without noise, or a run that is told no image."
    )


def outside(recipe: Recipe, where: Mapping[str, float | str]) -> list[str]:
    """Say which attributes that a person asks for lie outside what training saw, a sentence each.

    Arguments:
        recipe: Resolved.
        where: Attributes by name.

    Raises:
        UnknownNameError, ValueError: For an attribute that it is not told, or a value that is no number.
    """
    rows = recipe.shape.attributes if recipe.shape else ()
    return unseen(asked(where, rows), rows)
