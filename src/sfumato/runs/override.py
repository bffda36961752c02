"""Recipes with fields replaced by dotted assignments, as a person writes them on the command line."""

from __future__ import annotations

import dataclasses
import typing
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sfumato.core import outside
from sfumato.core.axes import AXES
from sfumato.core.find import OptionError, conform, find_named, hints_of, nearest, options_of, parse, type_hints
from sfumato.core.reading import read_json
from sfumato.runs import recipe as recipes
from sfumato.runs.check_numbers import check_numbers
from sfumato.runs.idle import idle, is_idle, read_with
from sfumato.runs.part import Part, RecipeError, part, show
from sfumato.runs.recipe import FILLED, Recipe, Sample

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
    if (Path(name) / "recipe.json").is_file():
        raise RecipeError(
            f"{name} is a run, not a recipe. To go on with it, repeat its command: sfumato train RECIPE --out {name}; "
            f"`sfumato runs {Path(name).parent}` names its recipe."
        )
    if not name.endswith(".json"):
        return find_named("recipe", name)()
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
    before, named = recipe, list[str]()
    for text in assignments:
        path, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"An override reads field=value, for example train.batch=128; got {text!r}.")
        keys = path.strip().replace("-", "_").split(".")
        try:
            recipe = _assign(recipe, keys, value, path.strip())
        except OptionError as error:
            raise RecipeError(str(error)) from None
        named.append(".".join(keys))
    check_numbers(recipe, named)
    if recipe.train.images != before.train.images and recipe.train.minutes is not None:
        raise RecipeError(
            f"train.images would change nothing: the budget is train.minutes={recipe.train.minutes:g}. Set "
            "train.minutes=none for a budget of images, or leave train.images out."
        )
    if _guided(before) and not _guided(recipe):
        recipe = dataclasses.replace(recipe, sample=_unshaped(recipe, named))
    _refuse_idle(before, recipe, assignments, named)
    return recipe


def with_warnings(assignments: Sequence[str]) -> Sequence[str]:
    """Return what a person assigns in one breath, and warn of what `override`, which goes in order, will replace.

    That is a field that is set twice, whose last value holds, and an option that stands before the part whose it is.

    >>> with_warnings(["sample.sampler=heun", "sample.sampler.churn=40"])
    ['sample.sampler=heun', 'sample.sampler.churn=40']
    """
    earlier: dict[str, str] = {}
    for text in assignments:
        path = text.partition("=")[0].strip().replace("-", "_")
        if path in earlier:
            warnings.warn(f"{path} is set twice; the last holds, {text}, and {earlier[path]} is left.", stacklevel=3)
        elif lost := next((before for name, before in earlier.items() if name.startswith(f"{path}.")), None):
            warnings.warn(f"{text} undoes {lost}, which stands before it. Put {text} first to keep both.", stacklevel=3)
        earlier[path] = text
    return assignments


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
            ways = sorted(read_with(recipe, field))[:SHOWN]
            instead = ", or set " + " or ".join(ways) if ways else ""
            raise RecipeError(
                f"{text} would change nothing: nothing in this recipe reads {field}. Leave it out{instead}."
            )


def _assign(node: Any, keys: list[str], value: str, path: str) -> Any:
    """Return a recipe, or a node of one, with one field replaced.

    Arguments:
        node: A recipe, a group of its fields, or a part.
        keys: Path of the field below the node.
        value: Text, read as the field's type.
        path: The whole path, for messages.

    Raises:
        RecipeError, OptionError: For an unknown field or an ill-typed value.
    """
    key, rest = keys[0], keys[1:]
    if isinstance(node, Part):
        if rest:
            raise RecipeError(f"{path}: an option of {node.axis}={node.name} has no fields of its own.")
        hint = hints_of(node.entry()).get(key)
        given = value.strip() if hint is str else parse(value)  # a text may be "none" or "1e3"
        several = typing.get_origin(hint) is tuple
        return node.with_options(**{key: _several(given) if several else given})
    names = {f.name: f for f in dataclasses.fields(node)}
    if key not in names:
        meant = elsewhere(node, keys, value)
        known = names.keys() - FILLED if isinstance(node, Recipe) else names
        raise RecipeError(meant or f"{path}: " + nearest("field", key, known))
    current = getattr(node, key)
    if names[key].metadata.keys() & {"parts"} and (rest or not isinstance(parse(value), int | float)):
        return _assign_parts(node, names[key], rest, value, path)
    if rest:
        if not (dataclasses.is_dataclass(current) or isinstance(current, Part)):
            raise RecipeError(f"{path}: {key} = {show(current)} has no field {'.'.join(rest)!r}.")
        return dataclasses.replace(node, **{key: _assign(current, rest, value, path)})
    hint = type_hints(type(node))[key]
    if hint is Part or (hint == bool | Part and isinstance(parse(value), str)):
        chosen = part(names[key].metadata["axis"], value.strip())
        chosen.entry()  # refuses an unknown name
        return dataclasses.replace(node, **{key: chosen})
    if "axis" in names[key].metadata:  # the name of a part, or several
        outside.allow_named(*value.split(","))
    if (
        dataclasses.is_dataclass(current)
        and not isinstance(current, Part)
        and not (parse(value) is None and type(None) in typing.get_args(hint))
    ):
        inner = ", ".join(f"{path}.{f.name}" for f in dataclasses.fields(current))
        raise RecipeError(f"{path} is a group of fields; set one of {inner}.")
    literal = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    parsed = value.strip() if hint is str or value.strip() in literal else parse(value)  # variance=none is a name
    if typing.get_origin(hint) is tuple:
        parsed = _several(parsed)
    return dataclasses.replace(node, **{key: conform(path, parsed, hint)})


def elsewhere(node: Any, keys: Sequence[str], value: str) -> str:
    """Return a sentence that says where a field stands which was named without its groups; "" if nowhere.

    Arguments:
        node: A recipe, or a group of its fields.
        keys: Path that it does not have.
        value: Text that was given.
    """
    found = [".".join([*path, *keys[1:]]) + f"={value}" for path in _paths(node) if path[-1] == keys[0]]
    return f"{'.'.join(keys)} is a field of a group. Write {' or '.join(found[:SHOWN])}." if found else ""


def _paths(node: Any) -> Iterator[tuple[str, ...]]:
    """Yield the path of every field below a group of fields, and of every option of its parts."""
    if isinstance(node, Part):
        yield from ((option,) for option in options_of(node.entry(), fixed=AXES[node.axis].fixed))
    elif dataclasses.is_dataclass(node):
        for field in dataclasses.fields(node):
            yield (field.name,)
            yield from ((field.name, *path) for path in _paths(getattr(node, field.name)))


def _several(parsed: Any) -> tuple[Any, ...]:
    """Return a value of a field that holds several: one stands for itself alone, none for no value."""
    return parsed if isinstance(parsed, tuple) else () if parsed is None else (parsed,)


def _assign_parts(node: Any, number: dataclasses.Field[Any], rest: list[str], value: str, path: str) -> Any:
    """Name the parts that stand beside a number, or set an option of the first of them that takes it."""
    beside = number.metadata["parts"]
    held: tuple[Part, ...] = getattr(node, beside)
    if not rest:
        axis = next(f.metadata["axis"] for f in dataclasses.fields(node) if f.name == beside)
        named = [] if parse(value) is None else value.strip().strip("[]()").split(",")
        chosen = tuple(part(axis, name.strip()) for name in named)
        for each in chosen:
            each.entry()  # refuses an unknown name
        return dataclasses.replace(node, **{beside: chosen, number.name: number.default})
    *of, option = rest
    for i, each in enumerate(held):
        known = options_of(each.entry(), fixed=AXES[each.axis].fixed)
        if option in known and of in ([], [each.name.replace("-", "_")]):
            new = (*held[:i], _assign(each, [option], value, path), *held[i + 1 :])
            return dataclasses.replace(node, **{beside: new})
    here = ", ".join(str(each) for each in held) or "none"
    raise RecipeError(f"{path} is an option of a part named in {number.name}, and none takes it; named: {here}.")
