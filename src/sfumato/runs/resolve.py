"""From a recipe to its images, and to the recipe resolved by them: what only the data can tell is filled in.

Images are loaded as the recipe says, with the labels that it learns (`runs.labelled`); training images that do not fit
into memory are streamed. The shape, the class names and sigma_data come from them. Of data, extractor and trackers from
outside this package the hash of the source is recorded (`Recipe.code`), as parts carry their own, and another refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sfumato.core import outside
from sfumato.core.find import find
from sfumato.data import load
from sfumato.data._load import outside_name
from sfumato.data.dataset import Dataset, sigma_data
from sfumato.data.gathering import Shape as Form
from sfumato.data.streaming import Stream, streamed
from sfumato.data.told.attributes import summary
from sfumato.metrics.features import ExtractorShapeError, extractor
from sfumato.runs.labelled import labelled, learned_of
from sfumato.runs.recipe import Part, Recipe, RecipeError, Shape

SIGMA_IMAGES = 10_000  # of a stream, from which sigma_data is estimated
FOUND = ("classes", "attributes", "beside")  # fields of a shape that a recipe need not state
FILES = {"alpha": "refuse", "cmyk": "refuse", "skip_bad": False}  # fields for data of files, and what is no wish


def load_data(recipe: Recipe, split: str, root: Path | str | None = None) -> Dataset:
    """Load one split of a recipe's data; `first` limits the training split only.

    Its labels are those of the data, or those that the recipe learns from its training images (`runs.labelled`).
    """
    check_code(recipe, "data")
    data = recipe.data
    options = {name: value for name, usual in FILES.items() if (value := getattr(data, name)) != usual}
    found = load(
        data.name,
        split=split,
        root=root,
        val=data.val,
        test=data.test,
        classes=data.classes or None,
        first=data.first if split == "train" else None,
        channels=data.channels,
        size=data.size,
        pad=data.pad,
        labels=data.labels is True or bool(data.classes),
        attributes=data.attributes,
        condition=data.condition,
        options=options,
    )
    if isinstance(data.labels, bool):
        return found
    unlabelled = replace(recipe, data=replace(data, labels=bool(data.classes)))
    return labelled(recipe, found, lambda: load_data(unlabelled, "train", root))


def training_data(recipe: Recipe, root: Path | str | None = None) -> Dataset | Stream:
    """Load a recipe's training images; files that do not fit into memory are streamed (see `data.streaming`).

    Raises:
        DataError, RecipeError: If data.stream=true meets a source, or fields, that cannot be streamed.
    """
    data = recipe.data
    whole = not data.classes and data.pad is None and not data.told_more
    if data.stream and not whole:
        raise RecipeError(
            "data.stream=true streams whole sources, without attributes and conditions: set data.classes=(), "
            "data.pad=none, data.attributes=() and data.condition=none."
        )
    stream = None
    if whole and data.stream is not False:
        stream = streamed(
            data.name,
            Form(data.size, data.channels, alpha=data.alpha, cmyk=data.cmyk),
            split="train",
            val=data.val,
            test=data.test,
            labels=data.labels is True,
            skip_bad=data.skip_bad,
            always=bool(data.stream),
        )
    if stream is not None and isinstance(data.labels, Part):
        raise RecipeError(
            f"data.labels={data.labels.name} is learned from all training images in memory, and these are streamed. "
            "Set data.stream=false or data.labels=false."
        )
    if stream is None:
        return load_data(recipe, "train", root)
    if data.first is None:
        return stream
    if not 0 < data.first <= len(stream):
        raise RecipeError(f"data.first must lie in [1, {len(stream)}]; got {data.first}.")
    return stream.subset(range(data.first), note=f"first {data.first}")


def fitting(name: str, shape: tuple[int, int, int]) -> str:
    """Return an extractor that takes images of a shape: the one named, else random features, else the pixels.

    >>> fitting("digits", (1, 8, 8)), fitting("digits", (3, 32, 32)), fitting("digits", (3, 6, 6))
    ('digits', 'random', 'pixels')
    """
    for candidate in (name, "random"):
        try:
            extractor(candidate, shape)
        except ExtractorShapeError:
            continue
        except (ValueError, OSError):  # of weights that are not at hand, which `evaluate` explains
            pass
        return candidate
    return "pixels"


def resolve(recipe: Recipe, data: Dataset | Stream) -> Recipe:
    """Fill in what the data decides: the image shape, the class names, sigma_data, and hashes of outside code.

    An extractor that does not take such images is replaced by one that does.

    Raises:
        RecipeError: If the recipe is for images of another shape or another number of classes.
    """
    if isinstance(data, Dataset) and isinstance(recipe.data.labels, Part):
        recipe = replace(recipe, learned=learned_of(recipe, data))
    shape = Shape(*data.shape, tuple(data.classes) if recipe.data.labels else ())
    if isinstance(data, Dataset) and recipe.data.told_more:
        beside = () if data.beside is None else tuple(data.beside.shape[1:])
        shape = replace(shape, attributes=summary(data), beside=beside)
    scored = replace(recipe.evaluate, extractor=fitting(recipe.evaluate.extractor, data.shape))
    stated = recipe.shape
    if stated is not None and replace(shape, **{name: getattr(stated, name) for name in FOUND}) != stated:
        raise RecipeError(
            f"{recipe.name} is for images of {stated.channels}x{stated.height}x{stated.width}, and {data.name} has "
            f"{'x'.join(map(str, data.shape))}. Use data.size or data.pad, or shape=none to take the data's shape."
        )
    if stated is not None and len(stated.classes) != len(shape.classes):
        raise RecipeError(
            f"{recipe.name} is for {len(stated.classes)} classes, and {data.name} has {len(shape.classes)}. Use "
            "data.labels or data.classes, or shape=none to take the data's classes."
        )
    if recipe.sigma_data is None:
        known = data.take(min(len(data), SIGMA_IMAGES), seed=0) if isinstance(data, Stream) else data
        estimated = sigma_data(known) if recipe.data.latent is None else 1.0  # latents are brought to that
        if round(float(estimated), 4) <= 0:
            raise RecipeError(
                f"All pixels of {data.name} are equal: sigma_data, their standard deviation, is "
                f"{float(estimated):.2g}, and there is nothing to learn. Give other data."
            )
    else:
        estimated = recipe.sigma_data
    return with_code(replace(recipe, shape=shape, evaluate=scored, sigma_data=round(float(estimated), 4)))


def _named(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield axis and name, "module.path:function", of what a recipe takes from outside without holding a part of it."""
    names = [("data", outside_name(recipe.data.name)), ("extractor", recipe.evaluate.extractor)]
    names += [("tracker", name) for name in recipe.train.track]
    yield from ((axis, name) for axis, name in names if outside.NAME.fullmatch(name))


def with_code(recipe: Recipe) -> Recipe:
    """Return a recipe that records the hash of the source behind every such name."""
    return replace(recipe, code=tuple((name, outside.code_of(find(axis, name))) for axis, name in _named(recipe)))


def check_code(recipe: Recipe, axis: str) -> None:
    """Refuse what a recipe names on an axis if its source is not the recorded one.

    Raises:
        OptionError: If it has changed.
        UnknownNameError: If it is not there or not allowed.
    """
    recorded = dict(recipe.code)
    for found, name in _named(recipe):
        if found == axis and name in recorded:
            find(axis, name, recorded[name])
