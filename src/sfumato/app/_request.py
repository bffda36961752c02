"""From the bytes of a request to work that is allowed, or a message that says what is.

    {"seed": 0, "count": 16, "label": "each" | "none" | number, "to": seed or null, "ways": [PANEL] or [PANEL, PANEL]}
    PANEL = {"run": 0, "use": null, "guidance": 1, "sampler": NAME, "sampler_options": {}, "grid": NAME,
           "grid_options": {}}

With a field "restore" or "edit" (`_change`) a picture is changed, one way, and `count` is the number of answers.
Without `to`, images have the seeds seed, seed + 1, ...; with it, they lie between two seeds' starts. Two ways share
seeds and labels, so what differs between their pictures is the way alone; runs of different classes take their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfumato.app._change import LARGEST, Change, read_change
from sfumato.app._controls import checked
from sfumato.app._fields import RequestError, fields, is_number, named, number, short, whole
from sfumato.app._models import Model
from sfumato.core.find import nearest
from sfumato.core.reading import parse_json
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Part, Sample
from sfumato.sources import classes_named, in_turn

SEEDS = 2**53  # a browser's numbers are exact below
GUIDANCE = 100.0  # largest absolute weight
LONGEST = 100  # characters of a class's name
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
        change: What is to become of a picture; None for images from noise alone.
    """

    seeds: tuple[int, ...]
    labels: tuple[tuple[int, ...] | None, ...]
    to: int | None
    mix: tuple[float, ...]
    ways: tuple[Panel, ...]
    change: Change | None = None


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
        ("seed", "count", "label", "to", "ways", *CHANGES),
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
    return Request(seeds, _labels(tree.get("label", "each"), seeds, ways), to, mix, ways)


def _changed(tree: Mapping[str, Any], seed: int, count: int, ways: tuple[Panel, ...], limits: Limits) -> Request:
    kinds = [kind for kind in CHANGES if tree.get(kind) is not None]
    if len(kinds) > 1 or len(ways) > 1 or tree.get("to") is not None:
        raise RequestError("A picture is restored or edited, in one way, and not between two seeds. Ask for one.")
    if seed >= LARGEST:
        raise RequestError(f"The seed of a picture's answers is below {LARGEST:,}; got {seed}.")
    label = tree.get("label", "none")
    if label == "each":
        raise RequestError('The answers for one picture have one class: label is "none", a class or its number.')
    change = read_change(kinds[0], tree[kinds[0]], ways[0].model, limits.steps)
    seeds = tuple(change.seeds(seed, count))
    return Request(seeds, _labels(label, seeds, ways), None, (), ways, change)


_WAY = ("run", "use", "sampler", "sampler_options", "grid", "grid_options", "guidance")


def _way(tree: Mapping[str, Any], models: Sequence[Model], limits: Limits) -> Panel:
    model = models[whole(tree, "run", 0, len(models) - 1, 0)]
    mine, use = model.run.recipe.sample, tree.get("use")
    if use is not None and use not in model.uses:
        raise RequestError(nearest("average", str(use)[:40], model.uses))
    sampler = _part(tree, "sampler", mine.sampler, limits.steps)
    grid = _part(tree, "grid", mine.grid, limits.steps)
    guidance = number(tree, "guidance", -GUIDANCE, GUIDANCE, mine.guidance)
    guided = override(model.run.recipe, [f"sample.guidance={guidance!r}"]).sample
    sample = dataclasses.replace(guided, sampler=sampler, grid=grid)
    steps = len(plan(model.recipe(sample)).grid) - 1
    if steps > limits.steps:
        raise RequestError(f"At most {limits.steps:,} steps; grid={grid} has {steps:,}. Take fewer, or another grid.")
    return Panel(model, use, sample)


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
