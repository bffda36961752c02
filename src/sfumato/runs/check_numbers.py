"""Numbers of a recipe that can mean nothing are refused before any work.

Which numbers a field or an option takes is declared with its type (`core.bounds`); this reads the declarations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from sfumato.core.bounds import Bounds, bounds_of
from sfumato.core.find import type_hints
from sfumato.runs.recipe import Part, Recipe, RecipeError


def check_numbers(recipe: Recipe, below: Sequence[str] = ("",)) -> None:
    """Refuse numbers that can mean nothing.

    Arguments:
        recipe: Any.
        below: Dotted paths of the fields that are looked at, with all that is below them; "" for every field.

    Raises:
        RecipeError: Naming the field, the rule and the value.
    """
    for path, value, bounds in _numbers(recipe, "", Bounds()):
        if not any(name in ("", path) or path.startswith(f"{name}.") for name in below):
            continue
        if math.isnan(value):
            raise RecipeError(f"{path} must be a number; got nan.")
        if value not in bounds:
            raise RecipeError(
                f"{path} must be {bounds.broken_by(value)}; got {value:{'' if isinstance(value, int) else 'g'}}."
            )


def _numbers(node: Any, path: str, bounds: Bounds) -> Iterator[tuple[str, float, Bounds]]:
    """Yield every number of a tree with its dotted path and bounds."""
    if isinstance(node, Part):
        hints = type_hints(node.entry(), include_extras=True)
        for key, value in node.options.items():
            yield from _numbers(value, f"{path}.{key}", bounds_of(hints.get(key)))
    elif dataclasses.is_dataclass(node):
        hints = type_hints(type(node), include_extras=True)
        for field in dataclasses.fields(node):
            inner = f"{path}.{field.name}" if path else field.name
            yield from _numbers(getattr(node, field.name), inner, bounds_of(hints[field.name]))
    elif isinstance(node, tuple | list):
        for value in node:
            yield from _numbers(value, path, bounds)
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield path, node, bounds
