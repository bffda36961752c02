"""``sfumato explain``: a recipe as a column of the design-space table."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
import textwrap
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Folder, Text, find_recipe, refusal, refuse_idle
from sfumato.cli._design import columns, literal, neighbours, row, table
from sfumato.cli._next import show_next
from sfumato.cli._wrapped import wrapped

if TYPE_CHECKING:
    from sfumato.runs.plan import Plan
    from sfumato.runs.recipe import Recipe

EVERY = "all"


def explain(
    recipes: Annotated[
        Positional[tuple[str, ...]], arg(metavar="RECIPE [FIELD=VALUE ...] [RECIPE ...]", help_behavior_hint="")
    ],
    *,
    beside: int = 2,
    data_root: Folder = None,
    shape: Text = None,
    classes: int = 0,
    about: Annotated[tuple[str, ...], arg(metavar="FIELD ...", help_behavior_hint="")] = (),
    out: Folder = None,
) -> int:
    """Explain a recipe: its column of the design-space table beside its neighbours, its cost, its fields.

    Fields set after a recipe belong to it, so a recipe can stand beside its own variant:

        sfumato explain edm-digits edm-digits target=v weighting=snr

    `--about` says in words what fields mean: sfumato explain edm-digits --about train.clip sample.grid

    `sfumato explain all` is the whole table, a row per recipe.

    Arguments:
        recipes: Names of recipes (see `sfumato list recipes`), each followed by the fields set in it; or all.
        beside: How many neighbours stand beside a single recipe: those that differ from it on the fewest axes.
        data_root: Folder with a sub-folder for each dataset; the variable SFUMATO_DATA or the cache unless given.
        shape: Image shape CxHxW, such as 1x28x28, to count the cost without the data.
        classes: How many classes the images of that shape have, if the recipe uses labels.
        about: Only say what these fields mean, each with all that stands below it: train, train.clip, sample.grid.
        out: Write the table of all recipes to this Markdown file instead.
    """
    if recipes == (EVERY,):
        refuse_idle(explain, locals(), ("beside", "shape", "classes", "about"), "The table of all recipes")
        return _every(out)
    refuse_idle(explain, locals(), ("out",), "The explanation of single recipes")
    if about:
        refuse_idle(explain, locals(), ("beside", "shape", "classes"), "What fields mean (--about)")
    if shape is None:
        refuse_idle(explain, locals(), ("classes",), "The cost on the data itself, without --shape,")
    asked = columns(recipes, "the recipe to explain; `sfumato list recipes` shows all of them")
    if len(asked) > 1:
        refuse_idle(explain, locals(), ("beside",), "A table of several recipes")
    chosen = [find_recipe(name, fields) for name, fields in asked]
    titles = [shlex.join([name, *fields]) for name, fields in asked]
    if about:
        for recipe in chosen:
            print("\n".join(meanings_of(recipe, about)))
        return 0
    costs = [cost_report(recipe, data_root, shape, classes) for recipe in chosen]  # may refuse, so before any print
    if len(chosen) > 1:
        print(table(titles, chosen) + "\n")
    else:
        print(chosen[0].name + "\n" + "=" * len(chosen[0].name))
        print(_docstring(asked[0][0]) + "\n")
        near = neighbours(chosen[0], beside)
        print(table([*titles, *(recipe.name for recipe in near)], [*chosen, *near]) + "\n")
    for title, cost in zip(titles, costs):
        print(f"Cost of {title}")
        print(textwrap.indent(cost, "  ") + "\n")
    if len(chosen) == 1:
        print("Fields (set one with FIELD=VALUE or --FIELD VALUE; - where nothing in this recipe reads it)")
        found = tuple(fields_of(chosen[0]))
        wide = [max(len(row[i]) for row in found) for i in range(2)]
        for path, kind, value in found:
            print(f"  {path:<{wide[0]}}  {kind:<{wide[1]}}  {value}")
        print(f"\nWhat a field means: sfumato explain {' '.join(asked[0][:1])} --about train.clip sample.grid ...")
        show_next((["train", asked[0][0], *asked[0][1]], "train it"))
    return 0


def _every(out: str | None) -> int:
    """Print every recipe as a row of the design-space table, or write it as Markdown."""
    from sfumato.core.find import entries
    from sfumato.core.writing import replace_text
    from sfumato.report.table import markdown_table, text_table

    rows = [row(entry) for entry in entries("recipe").values()]
    if out is None:
        print(text_table(rows))
        return 0
    text = (
        "# Every recipe as a row of the design space\n\n"
        f"Written by `sfumato explain all --out {out}`. Each column is an axis, each cell a part of that axis with the "
        "options that differ from its defaults. *measured* is what the recipe scored where it was trained by this "
        f"project: {sum(one['measured'] != '-' for one in rows)} of {len(rows)} recipes. The others are checked by "
        "their parameter counts and by tests of their parts; the scores that their papers publish are in their "
        "docstrings (`sfumato explain NAME`).\n\n"
    )
    replace_text(Path(out), text + markdown_table(rows) + "\n")
    print(f"{out}: {len(rows)} recipes")
    return 0


def _docstring(name: str) -> str:
    from sfumato.core.find import find_named

    return inspect.getdoc(find_named("recipe", name)) or "(undocumented)"


def cost_report(recipe: Recipe, data_root: str | None, shape: str | None, classes: int = 0) -> str:
    """Return what a recipe costs as text: parameters, multiply-adds, memory per level, images, calls per sample.

    Arguments:
        recipe: Not resolved.
        data_root: Where data lies.
        shape: "CxHxW" in place of the data's own.
        classes: How many classes that data has.

    Raises:
        RecipeError: If `train` would refuse it.
    """
    from sfumato.processes.machine import default_device
    from sfumato.runs.check import check
    from sfumato.runs.guided import sampling_cost
    from sfumato.runs.memory import peaks
    from sfumato.runs.plan import plan

    resolved = _with_shape(recipe, data_root, shape, classes)
    if resolved is None:
        return (
            f"not counted: the images of {recipe.data.name} are not at hand, and their shape decides it. "
            f"Give --shape CxHxW, or --data-root."
        )
    made = plan(resolved)
    guided = resolved.sample.classifier is not None  # its classes are not known here
    alone = dataclasses.replace(resolved, sample=dataclasses.replace(resolved.sample, classifier=None))
    check(plan(alone) if guided else made)
    counted = made.cost
    found = counted.network
    lines = [f"image      {'x'.join(map(str, made.image))}", *found.table().splitlines()]
    if counted.parameters != found.parameters:
        lines.insert(1, f"trained    {counted.parameters:,} parameters; of those, what makes images:")
    if recipe.train.minutes is None:
        steps = -(-recipe.train.images // recipe.train.batch)
        flop = counted.training * recipe.train.images
        lines.append(f"training   {recipe.train.images:,} images = {steps:,} steps = {operations(flop)}")
    else:
        lines.append(f"training   {recipe.train.minutes:g} minutes")
    if made.kind.draws:
        steps, calls = sampling_cost(made)
        said = f"{steps} steps = {calls} network calls" if made.kind.walks else f"{calls} network call"
        lines.append(f"sampling   {said} = {operations(calls * found.gflop)} per image")
    if made.kind.walks:
        lines += field_of(made)
    device = default_device().type
    held, train = peaks(made, device), recipe.train
    count = min(train.batch, train.micro or train.batch)
    sheet = f", {held.sheet / 2**30:.2f} GiB of a sheet" if made.kind.draws else ""
    lines.append(f"memory     {held.step / 2**30:.2f} GiB at the peak of a training step of {count} images{sheet}")
    lines.append(f"           (on the {device}; the images of the data come on top)")
    return "\n".join(lines)


def field_of(made: Plan) -> list[str]:
    """Return what an output pixel sees, in lines: through convolutions, and by attention.

    Arguments:
        made: A plan of a denoiser, with its shape.
    """
    from sfumato.networks._reach import reach

    if made.recipe.network.code:
        return ["sees       not counted: only the layers of this package's networks are known"]
    found, (_, height, width) = reach(made.network, made.walked), made.walked
    unit, whole = ("positions", "a latent") if made.in_latents else ("pixels", "an image")
    side = f"{'at least ' * found.cut}{found.side}x{found.side}"
    lines = [f"sees       {side} {unit} through convolutions; {whole} has {height}x{width}"]
    levels = [level for level in made.cost.network.levels if level.attention]
    sides = [f"{at.height}x{at.width}" if at.width > 1 else f"{at.height} tokens" for at in levels]
    return lines + ([f"           all of it by attention at {', '.join(sides)}"] if found.attends else [])


def operations(gflop: float) -> str:
    """Write a number of floating-point operations in its own unit.

    >>> operations(1.03), operations(3530.0), operations(1.64e12)
    ('1.03 GFLOP', '3.53 TFLOP', '1.64 ZFLOP')
    """
    for unit in "GTPE":
        if gflop < 1000:
            return f"{gflop:.3g} {unit}FLOP"
        gflop /= 1000
    return f"{gflop:.3g} ZFLOP"


def _with_shape(recipe: Recipe, data_root: str | None, shape: str | None, classes: int) -> Recipe | None:
    """Return the recipe with its image shape and classes, or None if that would take a download."""
    from sfumato.core.find import entries, options_of
    from sfumato.data.root import folder_of
    from sfumato.runs.labelled import labelling
    from sfumato.runs.recipe import Shape
    from sfumato.runs.resolve import load_data

    if shape is not None:
        try:
            channels, height, width = (int(side) for side in shape.lower().split("x"))
        except ValueError:
            raise refusal(f"A shape reads CxHxW, such as 1x28x28; got {shape!r}.") from None
        told = recipe.data.labels
        names = () if isinstance(told, bool) else labelling(told, (channels, height, width)).classes
        known = Shape(channels, height, width, names or tuple(map(str, range(classes if told else 0))))
    elif recipe.shape is not None:
        known = recipe.shape
    else:
        entry = entries("data").get(recipe.data.name.replace("_", "-"))
        remote = entry is not None and "root" in options_of(entry)
        if remote and not folder_of(recipe.data.name, data_root).is_dir():
            return None
        data = load_data(recipe, "train", data_root)
        known = Shape(*data.shape, tuple(data.classes) if recipe.data.labels else ())
    return dataclasses.replace(recipe, shape=known)


def fields_of(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """Yield every field that can be set: dotted path, type, current value; "-" where nothing reads the field."""
    from sfumato.runs.idle import idle, is_idle

    silent = idle(recipe)
    for path, kind, value, _ in _fields(recipe, ""):
        yield path, kind, "-" if is_idle(path, silent) else value


def meanings_of(recipe: Recipe, names: Sequence[str]) -> Iterator[str]:
    """Yield, in lines, what fields of a recipe mean.

    Arguments:
        recipe: Any recipe.
        names: Dotted paths; each stands for itself and all below it.

    Raises:
        OptionError: If a name is no field, naming the nearest.
    """
    from sfumato.core.find import nearest

    found = {path: (kind, value, meaning) for path, kind, value, meaning in _fields(recipe, "")}
    for name in names:
        below = [path for path in found if f"{path}.".startswith(f"{name.replace('-', '_')}.")]
        if not below:
            raise refusal(nearest("field", name, found, f"sfumato explain {recipe.name}"))
        for path in below:
            kind, value, meaning = found[path]
            yield f"{path} = {value}   ({kind})"
            yield wrapped(re.sub(r"\bNone\b", "none", meaning), "    ")


def _fields(node: Any, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield every field below a node: dotted path, type, current value, meaning."""
    from sfumato.core.axes import AXES
    from sfumato.core.find import hints_of, in_words, meanings, options_of, summary
    from sfumato.runs.recipe import FILLED, Part

    hints, said = typing.get_type_hints(type(node)), meanings(type(node))
    for field in dataclasses.fields(node):
        path, value, meaning = prefix + field.name, getattr(node, field.name), said.get(field.name, "")
        if path in FILLED:
            continue
        if isinstance(value, Part):
            yield path, f"part of {value.axis}", value.name, f"{meaning} {value.name}: {summary(value.entry())}"
            kinds, words = hints_of(value.entry()), meanings(value.entry())
            for option in options_of(value.entry(), fixed=AXES[value.axis].fixed).values():
                current = value.options.get(option.name, option.default)
                kind = in_words(kinds.get(option.name, Any))
                yield f"{path}.{option.name}", kind, literal(current), words.get(option.name, "(not documented)")
        elif "axis" in field.metadata:
            yield path, f"part of {field.metadata['axis']}", literal(value), meaning
        elif dataclasses.is_dataclass(value):
            yield from _fields(value, f"{path}.")
        else:
            yield path, in_words(hints[field.name]), literal(value), meaning
