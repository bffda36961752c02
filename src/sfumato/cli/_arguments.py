"""How words on the command line become fields of a recipe.

A field is set by its dotted path in either form, ``train.batch=128`` or ``--train.batch 128``, anywhere among the
other words. `arrange` writes the second form as the first and puts positional words before options, which is the order
the parser takes; a word that is neither an option of the command nor a field is refused with the nearest name.
"""

from __future__ import annotations

import inspect
import re
import shlex
import typing
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from sfumato.runs.recipe import Recipe
    from sfumato.runs.run import Run

Overrides = Annotated[Positional[tuple[str, ...]], arg(metavar="[FIELD=VALUE ...]", help_behavior_hint="")]
Name = Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")]
Text = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]
Number = Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint="")]
Count = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
Folder = Annotated[str | None, arg(metavar="PATH", help_behavior_hint="")]
MOST = 10_000_000  # images of one command
LAST = 2**62  # first seed of one; samples of a picture have seeds of their own beyond it
MACHINE = ("out", "device", "data_root", "quiet")  # options of every command that change no number of it
COMMAND: ContextVar[str] = ContextVar("command", default="")


def typed() -> str:
    """Return the command as it was typed, which a picture keeps; "" where Python called its function."""
    return COMMAND.get()


def again(command: Callable[..., Any], values: Mapping[str, Any]) -> str:
    """Return the command that makes a result again: its words and all options that differ from what is usual.

    Arguments:
        command: The command's function.
        values: What its parameters hold, by name. Where a result goes, and on which machine, is left out (`MACHINE`).
    """
    words = ["sfumato", command.__name__.rstrip("_")]
    for name, parameter in inspect.signature(command).parameters.items():
        value = values[name]
        each = [str(one) for one in (value if isinstance(value, tuple | list) else (value,))]
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            words += each
        elif name not in MACHINE and value != parameter.default:
            words += [f"--{name.replace('_', '-')}", *(() if value is True else each)]
    return shlex.join(words)


def arrange(command: Callable[..., Any], words: Sequence[str]) -> list[str]:
    """Return a command's words with fields as ``field=value`` and positional words first.

    Arguments:
        command: The command's function; it takes fields if it has a parameter `overrides` or `recipes`.
        words: What follows the command's name.

    Raises:
        OptionError: For an option that is neither the command's nor a field, a second value of one that
            takes one, or a field without a value.
    """
    parameters = inspect.signature(command).parameters
    hints = typing.get_type_hints(command)
    options = {k: hints[k] for k, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    takes_fields = not {"overrides", "recipes"}.isdisjoint(parameters)
    positional: list[str] = []
    flags: list[str] = []
    given: dict[str, list[str]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        word = "--out" if word == "-o" and "out" in options else word
        name, equals, value = word.removeprefix("--").partition("=")
        key = name.replace("-", "_")
        if not word.startswith("--") or key == "help":
            (flags if word.startswith("-") else positional).append(word)
        elif key in options:
            values = [value] if equals else _values(options[key], rest)
            if key not in given or options[key] is bool:
                given[key] = values
            elif typing.get_origin(options[key]) is tuple:
                given[key] += values
            else:
                raise refusal(f"--{name} is given twice, and the second would replace the first. Give one.")
        elif not takes_fields:
            flags.append(word)  # the parser names the nearest option
        else:
            _check_field(name, options, whole="recipe" in parameters)
            if not equals:
                if not rest or rest[0].startswith("--"):
                    raise refusal(f"--{name} needs a value: --{name} VALUE, or {name}=VALUE.")
                value = rest.pop(0)
            positional.append(f"{name}={value}")
    if "overrides" in parameters:  # its one required word comes before the fields
        positional.sort(key=lambda word: "=" in word)
    for key, values in given.items():
        flags += [f"--{key.replace('_', '-')}", *values]
    return positional + flags


def _values(hint: Any, rest: list[str]) -> list[str]:
    """Take an option's values off the words that follow it: none for a switch, several for a tuple, else one."""
    if hint is bool or not rest:
        return []
    if typing.get_origin(hint) is not tuple:
        return [rest.pop(0)]
    taken = []
    while rest and not rest[0].startswith("-") and "=" not in rest[0]:
        taken.append(rest.pop(0))
    return taken


def _check_field(name: str, options: Mapping[str, Any], whole: bool) -> None:
    """Refuse an undotted option that no recipe has as a field; dotted ones are checked against the recipe itself.

    Arguments:
        name: Of the option, without dashes before it.
        options: The command's own.
        whole: Whether the command takes all fields of a recipe, and not those of `sample` alone.
    """
    from sfumato.core.find import nearest
    from sfumato.runs.override import elsewhere
    from sfumato.runs.recipe import FILLED, Recipe, Sample

    key = name.replace("-", "_")
    if "." in name or key in {*Recipe.__dataclass_fields__, *Sample.__dataclass_fields__}:
        return
    meant = elsewhere(Recipe("any") if whole else Sample(), [key], "VALUE")
    known = {*options, *(Recipe.__dataclass_fields__.keys() - FILLED if whole else Sample.__dataclass_fields__)}
    raise refusal(meant or nearest("option", f"--{name}", [f"--{k.replace('_', '-')}" for k in known]))


def refusal(message: str) -> Exception:
    """Return the error that says what is wrong with the words of a command; its class comes with torch, so late."""
    from sfumato.core.find import OptionError

    return OptionError(message)


def refuse_idle(command: Callable[..., Any], values: Mapping[str, Any], names: Sequence[str], what: str) -> None:
    """Refuse options that are given where the command, as it is asked, makes no use of them.

    Arguments:
        command: The command's function.
        values: What its parameters hold, by name.
        names: Parameters that change nothing here.
        what: What makes no use of them, as the beginning of a sentence: "One file an image (--images)".

    Raises:
        OptionError: If one of them is not what is usual.
    """
    usual = inspect.signature(command).parameters

    def shown(name: str) -> str:
        if usual[name].kind is inspect.Parameter.KEYWORD_ONLY:
            return f"--{name.replace('_', '-')}"
        return " ".join(values[name]) if isinstance(values[name], tuple) else str(values[name])

    told = [shown(name) for name in names if values[name] != usual[name].default]
    if told:
        raise refusal(f"{what} makes no use of {' and '.join(told)}. Leave {'it' if len(told) == 1 else 'them'} out.")


def find_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a name, or in a .json file, with fields replaced."""
    from sfumato.runs.override import override, recipe_named, with_warnings

    return override(recipe_named(name), with_warnings(overrides))


def resettle(recipe: Recipe, overrides: Sequence[str], groups: Sequence[str]) -> Recipe:
    """Return a trained run's recipe with fields replaced that do not change what was trained.

    Arguments:
        recipe: Of the run.
        overrides: Assignments inside the groups. Fields of `sample` may leave its name out: "guidance=2".
        groups: Groups of fields that may change, e.g. ("sample",).

    Raises:
        RecipeError: For a field outside the groups.
    """
    from sfumato.core.find import nearest
    from sfumato.runs.override import elsewhere, override, with_warnings
    from sfumato.runs.recipe import Recipe, RecipeError, Sample

    full = []
    for text in overrides:
        head = re.split(r"[.=]", text)[0].replace("-", "_")
        if head in Sample.__dataclass_fields__:
            text = f"sample.{text}"
        elif head not in Recipe.__dataclass_fields__:
            path, _, value = text.partition("=")
            meant = elsewhere(recipe.sample, path.replace("-", "_").split("."), value)
            raise RecipeError(meant or nearest("field", head, [*Sample.__dataclass_fields__, *groups]))
        elif head not in groups:
            raise RecipeError(
                f"{text.partition('=')[0]} belongs to training, and this run is trained. Only fields of "
                f"{' and '.join(groups)} can change now; train another run with: sfumato train {recipe.name} {text}"
            )
        full.append(text)
    return override(recipe, with_warnings(full))


def settled(run: Run, overrides: Sequence[str], groups: Sequence[str], use: str | None = None) -> Run:
    """Return a trained run with fields replaced as by `resettle`; a grid may be one that was computed for it.

    Arguments:
        run: The run.
        overrides: Assignments inside the groups.
        groups: Groups of fields that may change.
        use: The average of the weights that is sampled; None for the recipe's choice.
    """
    from sfumato.runs.computed import by_levels, say_changes

    found = run.with_recipe(resettle(run.recipe, by_levels(run, overrides), groups))
    say_changes(found, use)
    return found


def given(**fields: Any) -> list[str]:
    """Return the fields that are not None as assignments; a double underscore stands for the dot of a path.

    >>> given(sampler="heun", grid__steps=9, guidance=None)
    ['sampler=heun', 'grid.steps=9']
    """
    return [f"{name.replace('__', '.')}={value}" for name, value in fields.items() if value is not None]


def device_named(name: str | None) -> str:
    """Return a device that is there, as `machine.device_named` does; that module comes with torch, so late."""
    from sfumato.processes import machine

    return machine.device_named(name)


def seed_list(text: str | None, n: int | None, default: int) -> list[int]:
    """Return the seeds that ``--seeds`` and ``--n`` ask for.

    Arguments:
        text: Ranges and single seeds: "0:64", "7", "0:8,100:108"; None for the first n.
        n: How many; None for as many as `text` says, or the default.
        default: How many if neither says.

    Raises:
        OptionError: If the text does not read so, a range is empty, a seed repeats, n is not the number of seeds, or
            they are more than one command makes.

    >>> seed_list("0:3,9", None, 64), seed_list(None, 2, 64)
    ([0, 1, 2, 9], [0, 1])
    """
    if text is None:
        count = default if n is None else n
        return list(range(allowed(count)))
    seeds: list[int] = []
    for piece in text.split(","):
        match = re.fullmatch(r"(\d+)(?::(\d+))?", piece.strip())
        if match is None or (match[2] and int(match[2]) <= int(match[1])):
            raise refusal(f"Seeds read 0:64 (64 left out), 7, or a list such as 0:8,100:108; got {text!r}.")
        first, end = int(match[1]), int(match[2] or int(match[1]) + 1)
        if end > 2**63:
            raise refusal(f"A seed lies below 2^63; got {text!r}.")
        allowed(end - first + len(seeds))
        seeds += range(first, end)
    if len(set(seeds)) != len(seeds):
        raise refusal(f"Seeds must be distinct, or images repeat; got {text!r}.")
    if n is not None and n != len(seeds):
        raise refusal(f"--seeds {text} are {len(seeds)} seeds, but --n asks for {n}. Give one of them.")
    return seeds


def check_first(seed: int) -> None:
    """Refuse a ``--first-seed`` that is none, or so large that those after it would not be.

    Raises:
        OptionError: Naming the rule and the value.
    """
    if not 0 <= seed <= LAST:
        raise refusal(f"--first-seed is at least 0{'' if seed < 0 else ' and at most 2^62'}; got {seed}.")


def allowed(count: int, name: str = "n") -> int:
    """Return a number of images that one command makes.

    Arguments:
        count: Asked for.
        name: What it is called.

    Raises:
        OptionError: If there is none, or more than one command makes.
    """
    if count < 1:
        raise refusal(f"{name} must be at least 1; got {count}.")
    if count > MOST:
        raise refusal(f"One command makes at most {MOST:,} images; got {count:,}. Make them in several ranges.")
    return count
