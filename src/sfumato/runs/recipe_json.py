"""Recipes as JSON: what runs, checkpoints and results write, and what earlier versions wrote.

A file never decides what is called: the axis of a part is that of the recipe's own field, and a file that names another
is refused.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from sfumato.core.find import conform, nearest, type_hints
from sfumato.runs.part import Part, RecipeError

# Axis -> what runs saved before axes had names call it; the hash of a recipe is taken in this spelling still.
EARLIER = {
    "schedule": "schedules",
    "target": "core.target",
    "network": "networks",
    "conditioning": "conditioning",
    "draw": "draws",
    "weighting": "weightings",
    "objective": "objectives",
    "optimizer": "training.optim",
    "rate": "training.rates",
    "sampler": "samplers",
    "grid": "grids",
}
# Fields added to the JSON since: left out while they are at their defaults, so that old trees stay equal.
LATER = (
    "code",
    "guides",
    "channels",
    "alpha",
    "cmyk",
    "skip_bad",
    "learned",
    "freeze",
    "rate_factors",
    "null",
    "chosen",
    "attributes",
    "condition",
    "beside",
    "latent",
)


def to_json(value: Any) -> Any:
    """Return a tree of dataclasses, or a value of one, as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = (f for f in dataclasses.fields(value) if f.name not in LATER or getattr(value, f.name) != f.default)
        return {f.name: to_json(getattr(value, f.name)) for f in kept}
    if isinstance(value, Mapping):
        return {k: to_json(v) for k, v in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    return value


def earlier(tree: Any) -> Any:
    """Return a tree of `to_json` with axes called as they were when recipes were first hashed."""
    if isinstance(tree, list):
        return [earlier(value) for value in tree]
    if not isinstance(tree, Mapping):
        return tree
    named = {"room": EARLIER.get(tree["axis"], tree["axis"])} if "axis" in tree else {}
    return {key: earlier(value) for key, value in tree.items() if key != "axis"} | named


def today(tree: Any) -> Any:
    """Return JSON of parts in today's spelling, as `to_json` writes it, where an earlier version wrote it.

    >>> today({"sampler": {"room": "samplers", "name": "heun", "options": {}}})
    {'sampler': {'axis': 'sampler', 'name': 'heun', 'options': {}}}
    """
    if isinstance(tree, list):
        return [today(value) for value in tree]
    if not isinstance(tree, Mapping):
        return tree
    axes = {module: axis for axis, module in EARLIER.items()}
    named = {"axis": axes.get(str(tree["room"]), tree["room"])} if {"room", "name", "options"} <= set(tree) else {}
    return named | {key: today(value) for key, value in tree.items() if not (named and key == "room")}


def from_json(cls: Any, tree: Any, path: str) -> Any:
    """Return a dataclass read from what `to_json` wrote.

    Arguments:
        cls: Its type.
        tree: JSON.
        path: Of the tree, for messages.

    Raises:
        RecipeError, OptionError: For a field that is unknown, missing or ill-typed.
    """
    hints = type_hints(cls)
    if not isinstance(tree, Mapping):
        raise RecipeError(f"{path} must be a JSON object; got {tree!r:.60}.")
    unknown = set(tree) - set(hints)
    if unknown:
        raise RecipeError(f"{path}: " + nearest("field", sorted(unknown)[0], hints))
    fields = dataclasses.fields(cls)
    axes = {f.name: f.metadata.get("axis", "") for f in fields}
    values: dict[str, Any] = {}
    for key, value in tree.items():
        hint = hints[key]
        inner = next((a for a in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(a)), None)
        if inner is Part and not (isinstance(value, bool) and bool in typing.get_args(hint)):
            several = isinstance(value, list) and tuple in (
                hint,
                *map(typing.get_origin, (hint, *typing.get_args(hint))),
            )
            read = [_part(v, f"{path}.{key}", axes[key]) for v in (value if several else [value])]
            values[key] = tuple(read) if several else read[0]
        elif inner is not None and isinstance(value, Mapping):
            values[key] = from_json(inner, value, f"{path}.{key}")
        else:
            values[key] = conform(f"{path}.{key}", value, hint)
    required = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in required if name not in values]:
        raise RecipeError(f"{path} must have the field {missing[0]!r}; got {', '.join(tree) or 'none'}.")
    return cls(**values)


def _part(tree: Any, path: str, axis: str) -> Part:
    """Read a part of one axis; a file that names another is refused, so that it cannot decide what is called."""
    given, name, options, code = (
        (tree.get("axis", tree.get("room")), *(tree.get(key) for key in ("name", "options")), tree.get("code", ""))
        if isinstance(tree, Mapping)
        else (None,) * 4
    )
    if not (all(isinstance(text, str) for text in (given, name, code)) and isinstance(options, Mapping)):
        raise RecipeError(f"{path} must have an axis, a name and options; got {tree!r:.60}.")
    if given not in (axis, EARLIER.get(axis)):
        raise RecipeError(f"{path} must be a part of the axis {axis}; got one of {given!r:.60}. Restore this file.")
    return Part(axis, name, {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}, code)
