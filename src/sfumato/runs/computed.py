"""Grids computed for a run: a file of RUN/grids each, taken by its name wherever a grid is named.

    sfumato schedule RUN --calls 6          writes RUN/grids/computed-6.json
    sfumato sample RUN --grid computed-6    walks it

A recipe that takes one holds its levels and its name (`grids.levels`), not the file: what makes an image stays known by
content, and the file may be computed anew.
"""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sfumato.core.errors import OptionError, UnknownNameError, nearest
from sfumato.core.find import entries
from sfumato.core.level import Level
from sfumato.core.reading import read_json
from sfumato.core.writing import replace_json
from sfumato.runs.part import option
from sfumato.runs.recipe import RecipeError
from sfumato.runs.run import Run

FOLDER = "grids"
NAME = r"[a-z][a-z0-9-]{0,63}"


def stored(run: Run) -> list[str]:
    """Return the names of the grids computed for a run."""
    return sorted(file.stem for file in (run.path / FOLDER).glob("*.json") if re.fullmatch(NAME, file.stem))


def check_name(name: str) -> None:
    """Refuse a name that no computed grid can have.

    Raises:
        OptionError: If it is the name of a part, or no file name.
    """
    if not re.fullmatch(NAME, name) or name in entries("grid"):
        raise OptionError(
            "The name of a computed grid has small letters, digits and dashes, and is no name of `sfumato list grids`; "
            f"got {name!r}."
        )


def store(run: Run, name: str, grid: Level, facts: Mapping[str, Any], use: str | None = None) -> Path:
    """Write a computed grid and what it was computed with; return its file.

    Arguments:
        run: Sampled as it was computed for.
        name: Its name.
        grid: Its levels, shape (N + 1,).
        facts: What else is known of it.
        use: The average of the weights; None for the recipe's choice.
    """
    check_name(name)
    noisy, path = grid[:-1], run.path / FOLDER / f"{name}.json"
    own = {"name": name, "sampler": run.making(use).sampler, "weights": _weights(run, use)}
    replace_json(path, {**own, "alphas": noisy.alpha.tolist(), "sigmas": noisy.sigma.tolist(), **facts})
    return path


def by_levels(run: Run, assignments: Sequence[str]) -> list[str]:
    """Return assignments in which every computed grid that is named stands as its levels.

    Raises:
        UnknownNameError: For a name that is neither a part nor a computed grid of this run.
        RecipeError: If the file of the grid holds none.
    """
    known, words = stored(run), []
    for text in assignments:
        path, _, value = (piece.strip() for piece in text.partition("="))
        if path.removeprefix("sample.") != "grid" or value.replace("_", "-") in entries("grid") or ":" in value:
            words.append(text)
        elif value in known:
            words += _levels(run, value)
        else:
            raise UnknownNameError(nearest("grid", value, [*entries("grid"), *known]))
    return words


def _levels(run: Run, name: str) -> list[str]:
    tree = _read(run, name)
    try:
        if not all(type(c) in (int, float) for key in ("alphas", "sigmas") for c in [*tree[key]]):
            raise TypeError("alphas and sigmas are lists of numbers")
        alphas, sigmas = (",".join(repr(float(c)) for c in tree[key]) for key in ("alphas", "sigmas"))
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError(
            f"{run.path / FOLDER / name}.json holds no grid ({type(error).__name__}: {error}). Compute it anew with: "
            f"{_anew(run, name, tree)}"
        ) from None
    fields = {"": "levels", ".called": name, ".alphas": alphas, ".sigmas": sigmas}
    return [f"sample.grid{key}={value}" for key, value in fields.items()]


def say_changes(run: Run, use: str | None = None) -> None:
    """Warn if a computed grid is walked by another sampler, or with other weights, than it was computed for.

    Arguments:
        run: As it is sampled.
        use: The average of the weights; None for the recipe's choice.
    """
    name = option(run.recipe.sample.grid, "called")
    if not name or name not in stored(run):
        return
    tree, sampler = _read(run, name), run.making(use).sampler
    if tree.get("sampler") != sampler:
        warnings.warn(f"The grid {name} was computed for {tree.get('sampler')}, and {sampler} walks it.", stacklevel=3)
    if tree.get("weights") != _weights(run, use):
        warnings.warn(
            f"The grid {name} was computed for other weights of this run. It is walked all the same; compute it anew "
            f"with: {_anew(run, name, tree)}",
            stacklevel=3,
        )


def _anew(run: Run, name: str, tree: Mapping[str, Any]) -> str:
    """Return the command that computes a grid again, for as many calls."""
    calls, fields = tree.get("calls"), tree.get("overrides")
    words = ["sfumato", "schedule", str(run.path), *(map(str, fields) if isinstance(fields, list) else ())]
    return shlex.join([*words, *(["--calls", str(calls)] if isinstance(calls, int) else []), "--name", name])


def _read(run: Run, name: str) -> dict[str, Any]:
    return read_json(run.path / FOLDER / f"{name}.json")


def _weights(run: Run, use: str | None) -> str:
    found, group = run.taken(use)
    return found.digest(group)
