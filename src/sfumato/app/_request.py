"""From the bytes of a request to work that is allowed, or a message that says what is.

    {"seed": 0, "count": 16, "label": "each" | "none" | number, "to": seed or null, "ways": [PANEL] or [PANEL, PANEL],
     "where": {ATTRIBUTE: number}, "like_image": PNG in base64 or null}
    PANEL = {"run": 0, "use": null, "guidance": 1, "sampler": NAME, "sampler_options": {}, "grid": NAME,
           "grid_options": {}}

A grid is a part, or one that was computed for the run.

With a field "restore" or "edit" (`_change`) a picture is changed, one way, and `count` is the number of answers.
`where` and `like_image` say what images are made under beside a class, as in `sfumato sample`.
Without `to`, images have the seeds seed, seed + 1, ...; with it, they lie between two seeds' starts. Two ways share
seeds and labels, so what differs between their pictures is the way alone; runs of different classes take their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sfumato.app._change import LARGEST, LONGEST, Change, grey_of, pixels_of, read_change
from sfumato.app._controls import checked
from sfumato.app._fields import RequestError, fields, is_number, named, number, short, whole
from sfumato.app._models import Model
from sfumato.core.condition import Label, part_of
from sfumato.core.find import nearest
from sfumato.core.reading import parse_json
from sfumato.runs.check_numbers import check_numbers
from sfumato.runs.computed import by_levels
from sfumato.runs.conditions import outside
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Part, Sample
from sfumato.sources import classes_named, in_turn

SEEDS = 2**53  # a browser's numbers are exact below
GUIDANCE = 100.0  # largest absolute weight
CHANGES = ("restore", "edit")  # fields that change a picture


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        images: Most images in one request.
        steps: Most steps of a grid.
        seconds: Most seconds of computing.
        waiting: Most requests in the queue.
        body: Most bytes of a request.
        upload: Most bytes of a picture whose settings are read.
    """

    images: int = 64
    steps: int = 1000
    seconds: float = 120.0
    waiting: int = 16
    body: int = 64 * 1024
    upload: int = 8 * 1024 * 1024


@dataclass(frozen=True)
class Panel:
    """How one panel's images are made."""

    model: Model
    use: str | None
    sample: Sample


@dataclass(frozen=True)
class Request:
    """What is to be made.

    Attributes:
        seeds: One seed per image.
        labels: Of each way: one per image, or None for no class.
        to: The seed at the other end of an interpolation, or None.
        mix: Weight of each image between the two seeds.
        ways: One, or two side by side.
        told: Of each way: what its images are made under.
        change: What is to become of a picture; None for images from noise alone.
        where: Attributes that all of them are to have, by name.
        image: The image that models are told beside, uint8 (c, h, w); None for those of test images, or nothing.
        unseen: Which attributes lie outside what training saw, a sentence each.
    """

    seeds: tuple[int, ...]
    labels: tuple[tuple[int, ...] | None, ...]
    to: int | None
    mix: tuple[float, ...]
    ways: tuple[Panel, ...]
    told: tuple[Label | None, ...]
    change: Change | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    image: Tensor | None = None
    unseen: tuple[str, ...] = ()


def read_request(body: bytes, models: Sequence[Model], limits: Limits) -> Request:
    """Return the request that a body asks for.

    Arguments:
        body: JSON text, utf-8.
        models: The runs that can be sampled.
        limits: What a request may ask for.

    Raises:
        RequestError, OptionError, RecipeError: With the rule, the value and the remedy.
    """
    tree = fields(
        parse_json(body, "A request", kind=object, error=RequestError),
        "A request",
        ("seed", "count", "label", "to", "ways", "where", "like_image", *CHANGES),
    )
    to = None if tree.get("to") is None else whole(tree, "to", 0, SEEDS - 1, 0)
    count = whole(tree, "count", 1 if to is None else 2, limits.images, 1 if to is None else 9)
    seed = whole(tree, "seed", 0, SEEDS - limits.images, 0)
    given = tree.get("ways")
    if not isinstance(given, list) or not 1 <= len(given) <= 2:
        raise RequestError("A request has one or two ways of sampling (ways).")
    ways = tuple(_way(fields(way, "A way", _WAY), models, limits) for way in given)
    if any(tree.get(kind) is not None for kind in CHANGES):
        return _changed(tree, seed, count, ways, limits)
    seeds = (seed,) * count if to is not None else tuple(range(seed, seed + count))
    mix = () if to is None else tuple(i / (count - 1) for i in range(count))
    labels = _labels(tree.get("label", "each"), seeds, ways)
    where, image = _where(tree.get("where")), None
    if tree.get("like_image") is not None:
        image = pixels_of(tree["like_image"], "The image that a model is told")
        if any(way.model.shape.beside[:1] == (1,) for way in ways):
            image = grey_of(image)
    unseen = dict.fromkeys(line for way in ways for line in outside(way.model.run.recipe, where))
    picked = tree.get("label", "each") != "each"
    told = tuple(
        way.model.run.named(seeds, _tensor(own), where, image, way.model.lender(where, image), picked)
        for way, own in zip(ways, labels)
    )
    labels = tuple(None if (own := part_of(each, "label")) is None else tuple(own.tolist()) for each in told)
    return Request(seeds, labels, to, mix, ways, told, None, where, image, tuple(unseen))


def _where(tree: Any) -> dict[str, str]:
    """Return attributes by name, as a command line has them."""
    if tree is not None and not isinstance(tree, dict):
        raise RequestError(f"where is a JSON object of attributes and numbers; got {short(tree)}.")
    for name, value in (tree or {}).items():
        if not is_number(value) and not (isinstance(value, str) and len(value) <= LONGEST):
            raise RequestError(f"{name[:40]} must be a finite number; got {short(value)}.")
    return {name: str(value) for name, value in (tree or {}).items()}


def _tensor(labels: tuple[int, ...] | None) -> Tensor | None:
    return None if labels is None else torch.tensor(labels)


def _changed(tree: Mapping[str, Any], seed: int, count: int, ways: tuple[Panel, ...], limits: Limits) -> Request:
    kinds = [kind for kind in CHANGES if tree.get(kind) is not None]
    if len(kinds) > 1 or len(ways) > 1 or tree.get("to") is not None:
        raise RequestError("A picture is restored or edited, in one way, and not between two seeds. Ask for one.")
    if seed >= LARGEST:
        raise RequestError(f"The seed of a picture's answers is below {LARGEST:,}; got {seed}.")
    label = tree.get("label", "none")
    if tree.get("where") or tree.get("like_image"):
        raise RequestError("A picture is restored or edited under a class alone: leave where and like_image out.")
    if label == "each":
        raise RequestError('The answers for one picture have one class: label is "none", a class or its number.')
    change = read_change(kinds[0], tree[kinds[0]], ways[0].model, limits.steps)
    if change.single and count > 1:
        raise RequestError(f"A picture that is encoded and decoded has one answer: count is 1; got {count}.")
    seeds = tuple(change.seeds(seed, count))
    labels = _labels(label, seeds, ways)
    return Request(seeds, labels, None, (), ways, tuple(map(_tensor, labels)), change)


_WAY = ("run", "use", "sampler", "sampler_options", "grid", "grid_options", "guidance")


def _way(tree: Mapping[str, Any], models: Sequence[Model], limits: Limits) -> Panel:
    model = models[whole(tree, "run", 0, len(models) - 1, 0)]
    mine, use = model.run.recipe.sample, tree.get("use")
    if use is not None and use not in model.run.tracked:
        raise RequestError(nearest("average", str(use)[:40], model.run.tracked))
    sampler = _part(tree, "sampler", mine.sampler, limits.steps)
    grid = _grid(tree, model, limits.steps)
    guidance = number(tree, "guidance", -GUIDANCE, GUIDANCE, mine.guidance)
    guided = override(model.run.recipe, [f"sample.guidance={guidance!r}"]).sample
    sample = dataclasses.replace(guided, sampler=sampler, grid=grid)
    check_numbers(model.recipe(sample), ("sample",))
    steps = len(plan(model.recipe(sample)).grid) - 1
    if steps > limits.steps:
        raise RequestError(f"At most {limits.steps:,} steps; this grid has {steps:,}. Take fewer, or another grid.")
    return Panel(model, use, sample)


def _grid(tree: Mapping[str, Any], model: Model, most: int) -> Part:
    """Return a grid by its name: a part, or one that was computed for the run."""
    if tree.get("grid") in model.computed:
        return override(model.run.recipe, by_levels(model.run, ["sample.grid=" + tree["grid"]])).sample.grid
    return _part(tree, "grid", model.run.recipe.sample.grid, most)


def _part(tree: Mapping[str, Any], kind: str, mine: Part, most: int) -> Part:
    name, options = named(tree, kind, mine.name)
    if options is None and name == mine.name:
        return mine
    return Part(mine.axis, name).with_options(**checked(mine.axis, name, options or {}, most))


def _labels(label: Any, seeds: Sequence[int], ways: Sequence[Panel]) -> tuple[tuple[int, ...] | None, ...]:
    """Return the labels of each way; of "each", a way takes its own run's classes in turn."""
    known = [way.model.run.classes for way in ways]
    if any(classes != known[0] for classes in known) and label not in ("each", "none"):
        raise RequestError(
            "The two runs know different classes, so they are compared with each one's own classes in turn, or without "
            "a class."
        )
    if not (isinstance(label, int) and is_number(label) and abs(label) <= SEEDS) and not (
        isinstance(label, str) and len(label) <= LONGEST
    ):
        raise RequestError(f'label is "each", "none", a class or its number; got {short(label)}.')
    wanted = "" if label == "each" else label if isinstance(label, str) else [int(label)]
    found = [in_turn(seeds, classes_named(wanted, classes)) for classes in known]
    return tuple(None if labels is None else tuple(labels.tolist()) for labels in found)
