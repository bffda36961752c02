"""Recipes as columns of the design-space table, and which recipes stand next to each other in it.

Two recipes are neighbours if they make the same choice on many axes; how much later fields such as a budget differ
does not count. The distance between two recipes is the number of axes on which they differ.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sfumato.cli._arguments import refusal

if TYPE_CHECKING:
    from sfumato.runs.recipe import Part, Recipe

# Rows of the table: what the row is called, and the fields it shows.
AXES = {
    "data": ("data",),
    "schedule": ("schedule",),
    "target": ("target",),
    "network": ("network",),
    "c_in": ("c_in",),
    "c_noise": ("c_noise",),
    "variance": ("variance",),
    "draw": ("draw",),
    "weighting": ("weighting",),
    "objective": ("objective",),
    "budget": ("train.images", "train.minutes"),
    "batch": ("train.batch",),
    "precision": ("train.precision",),
    "optimizer": ("train.optimizer",),
    "rate": ("train.rate",),
    "average": ("ema.use",),
    "sampler": ("sample.sampler",),
    "grid": ("sample.grid",),
    "guidance": ("sample",),
    "scored by": ("evaluate.extractor", "evaluate.n"),
}
SAME = '"'
# Rows that tell methods apart; the rest are budgets and habits.
METHOD = (
    *("schedule", "target", "network", "c_in", "c_noise", "variance", "draw", "weighting", "objective", "sampler"),
    *("grid", "guidance"),
)


def columns(words: Sequence[str], what: str) -> list[tuple[str, list[str]]]:
    """Split words into names, each with the fields that follow it.

    Arguments:
        words: Names and FIELD=VALUE.
        what: Should be named, for the message.

    Raises:
        OptionError: If no name comes first.

    >>> columns(["a", "b", "target=v"], "a letter")
    [('a', []), ('b', ['target=v'])]
    """
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if "=" not in word:
            found.append((word, []))
        elif found:
            found[-1][1].append(word)
        else:
            break
    if not found:
        raise refusal(f"Name {what}.")
    return found


def table(titles: Sequence[str], recipes: Sequence[Recipe]) -> str:
    """Return recipes as columns of the design-space table; rows in which they differ are marked with *.

    A cell that says what the first column says is written as a quotation mark.

    Arguments:
        titles: Of the columns.
        recipes: As many.
    """
    width = min(160, max(80, shutil.get_terminal_size().columns))
    room = max(20, (width - 14) // len(recipes) - 2)
    choices = [_choices(recipe) for recipe in recipes]
    rows = [("", list(titles)), *((axis, [chosen[axis] for chosen in choices]) for axis in AXES)]
    lines = []
    for axis, values in rows:
        mark = "*" if axis and len(set(values)) > 1 else " "
        shown = [values[0], *(SAME if axis and value == values[0] else value for value in values[1:])]
        cells = [textwrap.wrap(value, room) or [""] for value in shown]
        for i in range(max(map(len, cells))):
            texts = (cell[i] if i < len(cell) else "" for cell in cells)
            head = f"{mark} {axis:<11}" if i == 0 else " " * 13
            lines.append((head + " ".join(f"{text:<{room + 1}}" for text in texts)).rstrip())
    if len(recipes) > 1:
        lines.append(f"* the recipes differ here; {SAME} as in the first column")
    return "\n".join(lines)


def _choices(recipe: Recipe) -> dict[str, str]:
    """Return what a recipe chooses on every axis of the table, as text; "-" where nothing reads it."""
    from sfumato.runs.idle import idle

    silent = idle(recipe)
    return {axis: _value(recipe, paths, silent) for axis, paths in AXES.items()}


def _value(recipe: Recipe, paths: Sequence[str], silent: frozenset[str]) -> str:
    from sfumato.runs.idle import is_idle
    from sfumato.runs.making import guides
    from sfumato.runs.recipe import Data, Part, Sample

    if all(is_idle("sample.guidance" if path == "sample" else path, silent) for path in paths):
        return "-"
    values = []
    for path in paths:
        node: Any = recipe
        for key in path.split("."):
            node = getattr(node, key)
        if isinstance(node, Data):
            plain = Data(node.name)
            changed = [f.name for f in dataclasses.fields(node) if getattr(node, f.name) != getattr(plain, f.name)]
            node = ", ".join([node.name, *(f"{name}={_plain(getattr(node, name))}" for name in changed)])
        if isinstance(node, Sample):
            node = ", ".join(guide.words for guide in guides(node)) or "none"
        if isinstance(node, Part):
            node = _distinct(node)
        values.append(_plain(node))
    if paths == AXES["budget"]:
        return f"{values[0]} images" if values[1] == "none" else f"{values[1]} minutes"
    if paths == AXES["scored by"]:
        return f"FD[{values[0]}], n = {values[1]}"
    return ", ".join(values)


def _distinct(part: Part) -> Part:
    """Return a part without the options that its entry has by default."""
    from sfumato.core.find import options_of

    known = options_of(part.entry())
    told = {name: value for name, value in part.options.items() if name in known and known[name].default == value}
    return dataclasses.replace(part, options={k: v for k, v in part.options.items() if k not in told})


def _plain(value: Any) -> str:
    """Write a value for a reader of the table."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else literal(value)


def literal(value: Any) -> str:
    """Write a value so that, given as FIELD=VALUE, it is that very value again.

    >>> literal(400_000), literal(1 / 6), literal(0.5), literal((1, 2)), literal(None), literal(True)
    ('400000', '0.16666666666666666', '0.5', '1,2', 'none', 'true')
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(literal, value)) if value else "()"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def neighbours(recipe: Recipe, count: int = 2) -> list[Recipe]:
    """Return the recipes that differ from a recipe on the fewest axes of the method, nearest first.

    Arguments:
        recipe: Any recipe; one of its own name is no neighbour of it.
        count: How many.
    """
    from sfumato.core.find import entries

    others = [entry() for name, entry in entries("recipe").items() if name != recipe.name]
    own = _choices(recipe)
    return sorted(others, key=lambda other: _distance(own, _choices(other)))[:count]


def distance(a: Recipe, b: Recipe) -> tuple[int, int]:
    """Return on how many axes of the method two recipes differ, and on how many axes in all."""
    return _distance(_choices(a), _choices(b))


def _distance(a: dict[str, str], b: dict[str, str]) -> tuple[int, int]:
    differ = {axis for axis in AXES if a[axis] != b[axis]}
    return len(differ.intersection(METHOD)), len(differ)


def row(entry: Callable[[], Recipe]) -> dict[str, str]:
    """Return a recipe as a row of the table of all recipes: its choice on every axis of the method, and its scores.

    Arguments:
        entry: The recipe's function; its docstring owns what was measured.
    """
    recipe = entry()
    choices = _choices(recipe)
    return {
        "recipe": recipe.name,
        **{axis: choices[axis] for axis in ("data", *METHOD)},
        "measured": measured(entry) or "-",
    }


def measured(entry: Callable[[], Recipe]) -> str | None:
    """Return what a recipe's docstring says was measured here, in one line; None if nothing was."""
    found = re.search(r"^Measured here: (.+)", inspect.getdoc(entry) or "", re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()) if found else None
