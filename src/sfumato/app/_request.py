"""From the bytes of a request to work that is allowed, or a message that says what is.

    {"seed": 0, "count": 16, "label": "each" | "none" | number, "to": seed or null, "ways": [PANEL] or [PANEL, PANEL]}
    PANEL = {"run": 0, "use": null, "guidance": 1, "sampler": NAME, "sampler_options": {}, "grid": NAME,
           "grid_options": {}}

Without `to`, images have the seeds seed, seed + 1, ...; with it, they lie between two seeds' starts. Two ways share
seeds and labels, so what differs between their pictures is the way alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfumato.app._controls import checked
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


class RequestError(ValueError):
    """A request that is not allowed."""


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
        labels: One per image, or None for no class.
        to: The seed at the other end of an interpolation, or None.
        mix: Weight of each image between the two seeds.
        ways: One, or two side by side.
    """

    seeds: tuple[int, ...]
    labels: tuple[int, ...] | None
    to: int | None
    mix: tuple[float, ...]
    ways: tuple[Panel, ...]


def read_request(body: bytes, models: Sequence[Model], limits: Limits) -> Request:
    """Return the request that a body asks for.

    Arguments:
        body: JSON text, utf-8.
        models: The runs that can be sampled.
        limits: What a request may ask for.

    Raises:
        RequestError, OptionError, RecipeError: With the rule, the value and the remedy.
    """
    tree = _object(
        parse_json(body, "A request", kind=object, error=RequestError),
        "A request",
        ("seed", "count", "label", "to", "ways"),
    )
    to = None if tree.get("to") is None else _whole(tree, "to", 0, SEEDS - 1, 0)
    count = _whole(tree, "count", 1 if to is None else 2, limits.images, 1 if to is None else 9)
    seed = _whole(tree, "seed", 0, SEEDS - limits.images, 0)
    given = tree.get("ways")
    if not isinstance(given, list) or not 1 <= len(given) <= 2:
        raise RequestError("A request has one or two ways of sampling (ways).")
    ways = tuple(_way(_object(way, "A way", _WAY), models, limits) for way in given)
    seeds = (seed,) * count if to is not None else tuple(range(seed, seed + count))
    mix = () if to is None else tuple(i / (count - 1) for i in range(count))
    return Request(seeds, _labels(tree.get("label", "each"), seeds, ways), to, mix, ways)


_WAY = ("run", "use", "sampler", "sampler_options", "grid", "grid_options", "guidance")


def _object(tree: Any, what: str, names: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(tree, dict):
        raise RequestError(f"{what} is a JSON object; got {_short(tree)}.")
    for key in tree:
        if key not in names:
            raise RequestError(nearest("field", key[:40], names))
    return tree


def _whole(tree: Mapping[str, Any], name: str, least: int, most: int, default: int) -> int:
    value = tree.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:  # infinity too
        raise RequestError(f"{name} is a whole number; got {_short(value)}.")
    if not least <= value <= most:
        raise RequestError(f"{name} is a whole number from {least:,} to {most:,}; got {_short(value)}.")
    return int(value)


def _way(tree: Mapping[str, Any], models: Sequence[Model], limits: Limits) -> Panel:
    model = models[_whole(tree, "run", 0, len(models) - 1, 0)]
    mine, use = model.run.recipe.sample, tree.get("use")
    if use is not None and use not in model.uses:
        raise RequestError(nearest("average", str(use)[:40], model.uses))
    sampler = _part(tree, "sampler", mine.sampler, limits.steps)
    grid = _part(tree, "grid", mine.grid, limits.steps)
    guidance = tree.get("guidance", mine.guidance)
    number = isinstance(guidance, int | float) and not isinstance(guidance, bool)
    if not number or not abs(guidance) <= GUIDANCE:
        raise RequestError(f"guidance is a number from -{GUIDANCE:g} to {GUIDANCE:g}; got {_short(guidance)}.")
    guided = override(model.run.recipe, [f"sample.guidance={float(guidance)!r}"]).sample
    sample = dataclasses.replace(guided, sampler=sampler, grid=grid)
    steps = len(plan(model.recipe(sample)).grid) - 1
    if steps > limits.steps:
        raise RequestError(f"At most {limits.steps:,} steps; grid={grid} has {steps:,}. Take fewer, or another grid.")
    return Panel(model, use, sample)


def _part(tree: Mapping[str, Any], kind: str, mine: Part, most: int) -> Part:
    name, options = tree.get(kind, mine.name), tree.get(f"{kind}_options")
    if not isinstance(name, str):
        raise RequestError(f"{kind} is a name; got {_short(name)}.")
    if options is None and name == mine.name:
        return mine
    options = {} if options is None else options
    if not isinstance(options, dict):
        raise RequestError(f"{kind}_options is a JSON object; got {_short(options)}.")
    return Part(mine.axis, name).with_options(**checked(mine.axis, name, options, most))


def _labels(label: Any, seeds: Sequence[int], ways: Sequence[Panel]) -> tuple[int, ...] | None:
    classes = ways[0].model.run.classes
    if any(way.model.run.classes != classes for way in ways) and label != "none":
        raise RequestError("The two runs know different classes, so only images without a class can be compared.")
    number = isinstance(label, int) and not isinstance(label, bool) and abs(label) <= SEEDS
    if not number and not (isinstance(label, str) and len(label) <= LONGEST):
        raise RequestError(f'label is "each", "none", a class or its number; got {_short(label)}.')
    labels = in_turn(seeds, classes_named("" if label == "each" else str(label), classes))
    return None if labels is None else tuple(labels.tolist())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
