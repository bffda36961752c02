"""Controls for an entry's options, from its signature and docstring alone: a new sampler needs no line here."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sfumato.app._fields import is_number, short
from sfumato.core.axes import AXES
from sfumato.core.find import OptionError, entries, meanings, nearest, options_of, summary

LARGEST = 1e6  # absolute value of a number
LONGEST = 100  # characters of a text


@dataclass(frozen=True)
class Control:
    """One option.

    Attributes:
        name: Name of the option.
        kind: "number", "integer", "switch", "choice" or "text".
        default: Default of the option; None if it has none to show (no value, or infinity).
        choices: The values of a choice; () for other kinds.
        optional: Whether it may be left empty.
        about: From the docstring.
    """

    name: str
    kind: str
    default: Any
    choices: tuple[Any, ...]
    optional: bool
    about: str


def controls(entry: Callable[..., Any], fixed: tuple[str, ...]) -> dict[str, Control]:
    """Return a control for every option of an entry that a page can show.

    Arguments:
        entry: Function of a sampler or a grid.
        fixed: Names of parameters that the caller gives itself.
    """
    hints = typing.get_type_hints(entry)
    abouts = meanings(entry)
    found = {}
    for name, parameter in options_of(entry, fixed=fixed).items():
        kind, choices, optional = _kind(hints.get(name, Any))
        if kind:
            default = parameter.default
            if isinstance(default, float) and not math.isfinite(default):
                default, optional = None, True
            default = 0.0 if kind == "number" and default is False else default
            found[name] = Control(name, kind, default, choices, optional, abouts.get(name, ""))
    return found


def _kind(hint: Any) -> tuple[str, tuple[Any, ...], bool]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    arms = typing.get_args(hint) if union else (hint,)
    optional = type(None) in arms
    literal = next((arm for arm in arms if typing.get_origin(arm) is typing.Literal), None)
    if literal is not None:
        return "choice", typing.get_args(literal), optional
    for kind, name in ((float, "number"), (int, "integer"), (bool, "switch"), (str, "text")):
        if kind in arms:
            return name, (), optional
    return "", (), optional


def checked(axis: str, name: str, options: Mapping[str, Any], most: int) -> dict[str, Any]:
    """Return the options of an entry if each has a control and a bounded value.

    Arguments:
        axis: Its name, such as "sampler".
        name: Name of the part.
        options: Name -> value, as JSON has it; null for the default.
        most: The largest integer allowed.

    Raises:
        UnknownNameError: For an unknown entry.
        OptionError: For an unknown option or a value that is not allowed.
    """
    known = _all(axis)
    if name not in known:
        raise OptionError(nearest(axis, name, known))
    what, found = f"{axis} {name}", {}
    for key, value in options.items():
        if key not in known[name]:
            offered = ", ".join(known[name]) or "none"
            raise OptionError(f"The {what} has no option {key!r}. Options: {offered}.")
        if value is not None:
            found[key] = _value(f"{what}: {key}", known[name][key], value, most)
    return found


def attribute_control(row: tuple[str, float, float, float, float]) -> dict[str, Any]:
    """Return the control of an attribute, from what training saw of it (`data.told.attributes.summary`).

    Numbers that are 0 and 1 alone have the variance m (1 - m) of a coin, and no others between 0 and 1 have as much.

    Arguments:
        row: Its name, mean, standard deviation, least and greatest value.
    """
    name, mean, deviation, least, greatest = row
    coin = (least, greatest) == (0, 1) and math.isclose(deviation**2, mean * (1 - mean), rel_tol=1e-4)
    step = 10.0 ** math.floor(math.log10((greatest - least) / 100))
    kind = "switch" if coin else "number"
    return {"name": name, "kind": kind, "mean": mean, "least": least, "greatest": greatest, "step": step}


def _value(what: str, control: Control, value: Any, most: int) -> Any:
    number = is_number(value)
    if control.kind == "number":
        if not number or not math.isfinite(value) or abs(value) > LARGEST:
            raise OptionError(f"{what} is a number from {-LARGEST:,.0f} to {LARGEST:,.0f}; got {short(value)}.")
        return float(value)
    if control.kind == "integer":
        if not number or value != int(value) or not 0 <= value <= most:
            raise OptionError(f"{what} is a whole number from 0 to {most:,}; got {short(value)}.")
        return int(value)
    if control.kind == "choice" and value not in control.choices:
        raise OptionError(f"{what} is one of {', '.join(map(str, control.choices))}; got {short(value)}.")
    if control.kind == "switch" and not isinstance(value, bool):
        raise OptionError(f"{what} is true or false; got {short(value)}.")
    if control.kind == "text" and not (isinstance(value, str) and len(value) <= LONGEST):
        raise OptionError(f"{what} is a text of at most {LONGEST} characters; got {short(value)}.")
    return value


def _all(axis: str) -> dict[str, dict[str, Control]]:
    return {name: controls(entry, AXES[axis].fixed) for name, entry in entries(axis).items()}


def described(axis: str) -> list[dict[str, Any]]:
    """Return the parts of an axis for the page: name, first docstring line, controls."""
    known = _all(axis)
    return [
        {"name": name, "about": summary(entry), "controls": [asdict(control) for control in known[name].values()]}
        for name, entry in entries(axis).items()
    ]
