"""Data, extractors and trackers from outside this package, which a recipe names without holding a part of them.

A run records the hash of the source behind each (`Recipe.code`), as parts carry their own, and refuses another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sfumato.core import outside
from sfumato.core.find import find
from sfumato.data._load import outside_name
from sfumato.runs.recipe import Recipe


def _named(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield the axis and the name, "module.path:function", of what a recipe takes from outside by name."""
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
