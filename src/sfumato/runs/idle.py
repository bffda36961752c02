"""Idle fields of a recipe: those that nothing it is made of reads.

A schedule is idle where draw, grid and objective make levels of their own; a weighting where the objective has no
loss to weigh; every noise level where a generator is trained; the weight of autoguidance where there is none. Which
fields they are follows from what the parts ask for (`Plan.reads`) and from what making the list of a recipe's
guidance reads (`runs.guided.guidance_of`), so a new part needs no entry here. A person who sets an idle field is
refused (`runs.override`), tables show it as "-", and two recipes do not differ by it.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

from sfumato.core.find import entries, type_hints
from sfumato.runs import recipe as recipes
from sfumato.runs.guided import guidance_of
from sfumato.runs.plan import Plan, plan
from sfumato.runs.recipe import Part, Recipe, Sample


class _Read:
    """Hand on the fields of sampling settings and remember which were read."""

    def __init__(self, sample: Sample) -> None:
        self.sample, self.names = sample, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        own = vars(Sample).get(name)
        return own.fget(self) if isinstance(own, property) and own.fget else getattr(self.sample, name)


def idle(recipe: Recipe) -> frozenset[str]:
    """Return the dotted paths of the fields that nothing reads: fields of the recipe itself and of `sample`.

    Arguments:
        recipe: Any.
    """
    made = plan(recipe)
    own = {name for name in DESIGN if name not in made.reads}
    return frozenset(own | {f"sample.{name}" for name in _SAMPLE - _sampled(made)})


def _sampled(made: Plan) -> set[str]:
    """Return the fields of `sample` that are read; the batch also says how many images a classifier judges at once."""
    if not made.kind.walks:
        return {"batch"}
    read = _Read(made.recipe.sample)
    guidance_of(typing.cast(Sample, read))
    return read.names | (made.reads & _SAMPLE) | {"batch", "size", "interval"}


# what the parts of a recipe choose among; the rest is about data, budget and judging
OTHERS = {"name", "data", "train", "ema", "sample", "evaluate", "shape", "latent", "code", "chosen"}
DESIGN = {f.name for f in dataclasses.fields(Recipe)} - OTHERS
_SAMPLE = {f.name for f in dataclasses.fields(Sample)}


def is_idle(path: str, idle_fields: frozenset[str]) -> bool:
    """Return whether a dotted path is an idle field or an option of one."""
    return any(path == name or path.startswith(f"{name}.") for name in idle_fields)


def read_with(recipe: Recipe, path: str) -> list[str]:
    """Return assignments that would make an idle field matter, one change each.

    Arguments:
        recipe: Any.
        path: The idle field, dotted.
    """
    return [text for text, changed in _neighbours(recipe) if not is_idle(path, idle(changed))]


def _neighbours(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Yield recipes that differ in one choice: another entry of a part, another form of guidance."""
    for name in DESIGN | {f"sample.{name}" for name in _SAMPLE}:
        head, _, last = name.rpartition(".")
        node: Any = recipe.sample if head else recipe
        for text, value in _choices(node, last or name):
            changed = dataclasses.replace(node, **{last or name: value})
            yield f"{name}={text}", dataclasses.replace(recipe, sample=changed) if head else changed


def _choices(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    value, hint = getattr(node, name), type_hints(type(node))[name]
    if isinstance(value, Part):
        yield from ((other, Part(value.axis, other)) for other in entries(value.axis) if other != value.name)
    elif typing.get_origin(hint) is typing.Literal:
        yield from ((str(other), other) for other in typing.get_args(hint) if other != value)
    elif str in typing.get_args(hint):
        yield "RUN", "RUN"
    elif isinstance(value, float):
        yield f"{value + 1:g}", value + 1


def differences(a: Recipe, b: Recipe) -> dict[str, tuple[str, str]]:
    """Return the dotted paths at which two recipes differ, with both values as text; "-" where a field is idle.

    Arguments:
        a, b: Any recipes. A field that is idle in both tells them apart in neither.
    """
    silent = idle(a), idle(b)
    found = {}
    for path, pair in recipes.differences(a, b).items():
        shown = tuple("-" if is_idle(path, fields) else value for fields, value in zip(silent, pair))
        if shown != ("-", "-"):
            found[path] = shown
    return typing.cast(dict[str, tuple[str, str]], found)
