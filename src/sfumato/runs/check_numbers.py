"""Numbers of a recipe that can mean nothing are refused before any work: NaN anywhere, and counts that count nothing.

Options of parts are checked by the parts themselves; only NaN, which passes every comparison unseen, is caught here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from sfumato.runs.recipe import Part, Recipe, RecipeError

LEAST = {  # field -> the smallest value that means something
    "train.images": 1,
    "train.batch": 1,
    "train.micro": 1,
    "train.log_every": 1,
    "train.sheet_every": 1,
    "train.bad_in_a_row": 1,
    "train.keep": 2,
    "train.save_every": 0,
    "sample.batch": 1,
    "evaluate.n": 2,
}
ABOVE_ZERO = ("train.minutes", "train.clip", "sigma_data")


def check_numbers(recipe: Recipe) -> None:
    """Refuse numbers that can mean nothing.

    Arguments:
        recipe: Any.

    Raises:
        RecipeError: Naming the field, the rule and the value.
    """
    for path, value in _numbers(recipe, ""):
        if math.isnan(value):
            raise RecipeError(f"{path} must be a number; got nan.")
        if path in LEAST and value < LEAST[path]:
            raise RecipeError(f"{path} must be at least {LEAST[path]}; got {value:g}.")
        if path in ABOVE_ZERO and not 0 < value < math.inf:
            raise RecipeError(f"{path} must be positive and finite; got {value:g}.")
        if path == "sample.guidance" and math.isinf(value):
            raise RecipeError(f"{path} must be finite; got {value:g}.")


def _numbers(node: Any, path: str) -> Iterator[tuple[str, float]]:
    """Yield every number of a tree with its dotted path."""
    if isinstance(node, Part):
        for key, value in node.options.items():
            yield from _numbers(value, f"{path}.{key}")
    elif dataclasses.is_dataclass(node):
        for field in dataclasses.fields(node):
            yield from _numbers(getattr(node, field.name), f"{path}.{field.name}" if path else field.name)
    elif isinstance(node, tuple | list):
        for value in node:
            yield from _numbers(value, path)
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield path, float(node)
