"""``sfumato plot``: choices on one axis side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Folder, Name, find_recipe, refusal, refuse_idle

if TYPE_CHECKING:
    from sfumato.report.axes_of_noise import Drawn
    from sfumato.runs.recipe import Recipe

AXES = {"schedules": "schedule", "grids": "sample.grid", "draws": "draw", "weightings": "weighting"}  # axis -> field
STEPS = 18  # of a grid that is not told how many
# What is drawn if nothing is named: an entry made of a schedule is drawn on several.
EVERY_DRAW = (
    *("uniform", "schedule=linear", "uniform", "schedule=cosine", "uniform", "schedule=flow"),
    *("lognormal", "logit-normal"),
)
NEEDED = {
    "listed": ("entries=1000,600,300,100,20,1",),
    "levels": ("alphas=1,1,1,1", "sigmas=80,10,1,0.1"),
}  # options without which a part cannot be made


def plot(
    axis: Annotated[Positional[Literal["schedules", "grids", "draws", "weightings"]], arg(metavar="AXIS")],
    names: Annotated[
        Positional[tuple[str, ...]], arg(metavar="[NAME [OPTION=VALUE ...]] ...", help_behavior_hint="")
    ] = (),
    *,
    schedule: Name = None,
    power: float = 0.25,
    out: Folder = None,
) -> int:
    """Plot schedules, grids, draws or weightings side by side, with a table of their numbers.

    Options set after a name belong to it, and so does the schedule that it is made from. A recipe may stand in place
    of a name:

        sfumato plot schedules linear linear steps=4000 cosine
        sfumato plot grids karras karras rho=3 respaced steps=18 schedule=cosine
        sfumato plot draws edm-cifar10 flow-digits
        sfumato plot weightings simple min-snr gamma=5 sigmoid bias=2

    The table of schedules has abar_T, the signal left at the noisy end, and L_T, the bits per dimension by which the
    end differs from pure noise.

    Arguments:
        axis: schedules, grids, draws or weightings.
        names: Parts of that axis (see `sfumato list AXIS`) or recipes; every part unless given.
        schedule: Schedule that grids and draws are made from, unless one stands after the name; linear unless given.
        power: Mean square of an image, for L_T: 0.25 for photographs in [-1, 1], 1 for data of unit variance.
        out: Path of the PNG; AXIS.png unless given.
    """
    from sfumato.report.save import save
    from sfumato.report.table import text_table

    if axis == "schedules":
        refuse_idle(plot, locals(), ("schedule",), "A plot of schedules")
    else:
        refuse_idle(plot, locals(), ("power",), f"A plot of {axis}")
    if not 0 < power < float("inf"):
        raise refusal(f"--power is a positive mean square; got {power:g}.")
    figure, rows = draw(axis, names, schedule, power)
    print(text_table(rows))
    print(f"  {save(figure, out or f'{axis}.png')}")
    return 0


def draw(axis: str, words: Sequence[str] = (), schedule: str | None = None, power: float = 0.25) -> Drawn:
    """Return the figure and the table of `plot`.

    Arguments:
        axis: One of `AXES`.
        words: Names, each followed by its options; () for every entry.
        schedule: The one that names without their own are made from.
        power: Mean square of an image, for L_T.

    Raises:
        UnknownNameError, OptionError, RecipeError: For a name or option that does not exist, or parts that do not fit.
    """
    from sfumato.report import axes_of_noise
    from sfumato.runs.plan import plan

    chosen = {title: column(axis, name, fields, schedule) for title, name, fields in _columns(axis, words)}
    if axis == "weightings":
        return axes_of_noise.weightings({title: _weights(recipe) for title, recipe in chosen.items()})
    if axis == "schedules":
        return axes_of_noise.schedules({t: plan(r).schedule for t, r in chosen.items()}, power=power)
    parts = {t: getattr(plan(r), axis.removesuffix("s")) for t, r in chosen.items()}
    return (axes_of_noise.grids if axis == "grids" else axes_of_noise.draws)(parts)


def _columns(axis: str, words: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """Return (title, name, options) of what is asked; titles are distinct."""
    from sfumato.cli._design import columns
    from sfumato.core.find import entries

    if not words:
        every = tuple(word for name in entries(axis) for word in (name, *NEEDED.get(name, ())))
        words = EVERY_DRAW if axis == "draws" else every
    return [(" ".join([name, *fields]), name, fields) for name, fields in columns(words, f"one of the {axis}")]


def column(axis: str, name: str, fields: Sequence[str], schedule: str | None = None) -> Recipe:
    """Return a recipe whose part of an axis is the one asked for.

    Arguments:
        axis: One of `AXES`.
        name: Of an entry, or of a recipe that has one.
        fields: Its options, and fields of a recipe such as "schedule=cosine".
        schedule: Schedule unless the fields name one.
    """
    from sfumato.core.find import UnknownNameError, entries, nearest
    from sfumato.runs.override import override
    from sfumato.runs.part import asks
    from sfumato.runs.recipe import Recipe, Shape, part

    known, path = entries(axis), AXES[axis]
    own = [text for text in fields if _head(text) in Recipe.__dataclass_fields__]
    options = [f"{path}.{text}" for text in fields if text not in own]
    shape = Shape(1, 8, 8, ("any",))
    if (key := name.replace("_", "-")) in known:
        entry = part(axis, key)
        base = Recipe("plot", schedule=part("schedule", schedule or "linear"), draw=part("draw", "uniform"))
        more = [f"{path}.steps={STEPS}"] if asks(entry, "steps") and axis == "grids" and not _sets(fields) else []
        chosen = override(override(base, [f"{path}={key}", *more]), [*own, *options])
    elif key in entries("recipe"):
        chosen = override(find_recipe(key), [*own, *options])
    else:
        raise UnknownNameError(nearest(f"part of {axis}", name, known))
    return replace(chosen, shape=chosen.shape or shape, sigma_data=chosen.sigma_data or 0.5)


def _head(text: str) -> str:
    return text.partition("=")[0].partition(".")[0].replace("-", "_")


def _sets(fields: Sequence[str]) -> bool:
    """Return whether options say how long a grid is."""
    return any(_head(text) in ("steps", "spec") for text in fields)


def _weights(recipe: Recipe) -> tuple[Any, Any]:
    """Return the levels that a recipe's weighting can be asked at, and its weight of |D - x0|^2 there."""
    import torch

    from sfumato.core.level import Level
    from sfumato.runs.part import asks
    from sfumato.runs.plan import plan

    made = plan(recipe)
    if asks(recipe.weighting, "table") or asks(recipe.target, "table"):
        level = None if made.table is None else made.table[1:]
    else:
        angle = torch.atan((-torch.linspace(-16, 16, 321, dtype=torch.float64) / 2).exp())
        level = Level(angle.cos(), angle.sin())
    return level, made.weighting(level, made.target)
