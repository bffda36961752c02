"""Recipes with fields replaced by dotted assignments, as a person writes them on the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sfumato.core.find import OptionError, find_named
from sfumato.core.reading import read_json
from sfumato.runs import recipe as recipes
from sfumato.runs.check_numbers import check_numbers
from sfumato.runs.idle import idle, is_idle, wakers
from sfumato.runs.recipe import Recipe, RecipeError, Sample, assign

SHOWN = 4  # of the choices that would make an idle field matter
BESIDE = {
    f"sample.{f.name}": f"sample.{f.metadata['parts']}" for f in dataclasses.fields(Sample) if "parts" in f.metadata
}


def recipe_named(name: str) -> Recipe:
    """Return a recipe by its name, by "module.path:function", or from a JSON file such as `sfumato search` writes.

    Raises:
        UnknownNameError: If there is none of that name; the nearest is offered.
        RecipeError: If the file holds no recipe.
    """
    if not name.endswith(".json"):
        found: Recipe = find_named("recipe", name)()
        return found
    try:
        tree = read_json(Path(name))
        return Recipe.from_json(tree.get("recipe", tree))
    except (OptionError, LookupError) as error:
        raise RecipeError(f"{name} holds no recipe: {error}") from None


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """Return the recipe with fields replaced by dotted assignments, applied in order.

    Turning guidance off (sample.guidance=1) also lets go of the recipe's own interval and ramp, which shape it.

    Arguments:
        recipe: Any recipe.
        assignments: Texts such as "train.batch=128", "sample.sampler=heun", "sample.sampler.churn=40".

    Raises:
        RecipeError: For an unknown field, naming the nearest; for a value that is ill-typed or out of bounds; for a
            changed field that nothing in the recipe reads, naming what would make it matter.
    """
    before, named = recipe, []
    for text in assignments:
        path, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"An override reads field=value, for example train.batch=128; got {text!r}.")
        keys = path.strip().replace("-", "_").split(".")
        try:
            recipe = assign(recipe, keys, value, path.strip())
        except OptionError as error:
            raise RecipeError(str(error)) from None
        named.append(".".join(keys))
    check_numbers(recipe, named)
    if _guided(before) and not _guided(recipe):
        recipe = dataclasses.replace(recipe, sample=_unshaped(recipe, named))
    _refuse_idle(before, recipe, assignments, named)
    return recipe


def _guided(recipe: Recipe) -> bool:
    return bool(recipe.sample.by_weight or recipe.sample.guides)


def _unshaped(recipe: Recipe, named: Sequence[str]) -> Any:
    """Return sampling settings without what shapes guidance, but for what a person named."""
    shaping: dict[str, Any] = {"guidance_ramp": "constant"}
    shaping |= {"interval": None} if recipe.sample.autoguidance is None else {}
    kept = {name: none for name, none in shaping.items() if f"sample.{name}" not in named}
    return dataclasses.replace(recipe.sample, **kept)


def _refuse_idle(before: Recipe, recipe: Recipe, assignments: Sequence[str], named: Sequence[str]) -> None:
    """Refuse an assignment that changes a field which nothing reads."""
    silent, changed = idle(recipe), recipes.differences(before, recipe)
    for text, path in zip(assignments, named):
        field = next((name for name in silent if is_idle(path, frozenset((name,)))), None)
        if field is not None and any(is_idle(found, frozenset((field, BESIDE.get(field, field)))) for found in changed):
            ways = sorted(wakers(recipe, field))[:SHOWN]
            instead = ", or set " + " or ".join(ways) if ways else ""
            raise RecipeError(
                f"{text} would change nothing: nothing in this recipe reads {field}. Leave it out{instead}."
            )
