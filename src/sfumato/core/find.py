"""Find the parts of a room by name.

A room is a module of small entries (`sfumato.schedules`), a package with one file per entry (`sfumato.samplers`,
entry ``heun`` = function ``heun`` in ``heun.py``), or a package whose files hold several entries each
(`sfumato.recipes`, whose `__init__` says ``SEVERAL_PER_FILE = True``: every public function is one). Nothing is
registered: an entry exists because its function stands there under its name with a docstring, so a new one is listed,
checked and tested by existing.

Options given for an entry are checked against its own signature: unknown names and ill-typed values are errors that
name the nearest valid ones.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class UnknownNameError(ValueError):
    """A name that a room does not have; the message offers the nearest ones."""


class OptionError(ValueError):
    """An option that an entry does not take, or a value of the wrong type."""


def nearest(kind: str, name: str, available: Iterable[str]) -> str:
    """Write the standard message for an unknown name.

    >>> nearest("sampler", "huen", ["heun", "euler"])
    "Unknown sampler 'huen'. Did you mean 'heun'? Available: euler, heun."
    """
    names = sorted(available)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"Unknown {kind} '{name}'.{hint} Available: {', '.join(names)}."


def _singular(room: str) -> str:
    return {"weightings": "weighting", "networks": "network", "data": "dataset"}.get(room, room.removesuffix("s"))


def entries(room: str) -> dict[str, Callable[..., Any]]:
    """Return every public entry of a room as name -> function, sorted by name. Underscores in names become dashes."""
    module = importlib.import_module(f"sfumato.{room}")
    path = getattr(module, "__path__", None)
    if path is None:
        return _sorted(_public(module))
    several = getattr(module, "SEVERAL_PER_FILE", False)
    found: dict[str, Callable[..., Any]] = {}
    for info in pkgutil.iter_modules(path):
        if info.name.startswith("_"):
            continue
        file = importlib.import_module(f"{module.__name__}.{info.name}")
        if several:
            found |= _public(file)
        elif callable(own := getattr(file, info.name, None)):
            found[info.name] = own
    return _sorted(found)


def _public(module: types.ModuleType) -> dict[str, Callable[..., Any]]:
    """Return the public functions that a module itself defines."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and inspect.isfunction(value) and value.__module__ == module.__name__
    }


def _sorted(found: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    return {name.replace("_", "-"): found[name] for name in sorted(found)}


def find(room: str, name: str) -> Callable[..., Any]:
    """Return the entry of a room called `name` (dashes and underscores are the same).

    Raises:
        UnknownNameError: With the nearest name and all available ones.
    """
    available = entries(room)
    key = name.replace("_", "-")
    if key not in available:
        raise UnknownNameError(nearest(_singular(room), name, available))
    return available[key]


def options_of(entry: Callable[..., Any], *, fixed: Iterable[str] = ()) -> dict[str, inspect.Parameter]:
    """Return the options a person may set: parameters with a default that the caller does not fix itself."""
    taken = set(fixed)
    return {
        p.name: p
        for p in inspect.signature(entry).parameters.values()
        if p.name not in taken and p.default is not inspect.Parameter.empty
    }


def check_options(
    what: str, entry: Callable[..., Any], options: Mapping[str, Any], *, fixed: Iterable[str] = ()
) -> dict[str, Any]:
    """Check options against an entry's signature and return them with exact types (3 becomes 3.0 for a float).

    Arguments:
        what: For messages, e.g. "sampler 'heun'".
        entry: The function that will receive them.
        options: name -> value.
        fixed: Parameters that the caller passes itself and a person may not set.

    Raises:
        OptionError: For an unknown option or an ill-typed value.
    """
    allowed = options_of(entry, fixed=fixed)
    hints = typing.get_type_hints(entry)
    checked = {}
    for key, value in options.items():
        if key not in allowed:
            raise OptionError(nearest(f"option of {what}", key, allowed) if allowed else f"{what} takes no options.")
        checked[key] = conform(f"{what}: {key}", value, hints.get(key, Any))
    return checked


def conform(what: str, value: Any, hint: Any) -> Any:
    """Return `value` as the annotated type, or raise `OptionError` naming the rule and the value.

    >>> conform("steps", 18, float), conform("mult", [1, 2], tuple[int, ...])
    (18.0, (1, 2))
    """
    try:
        return _conform(value, hint)
    except (TypeError, ValueError):
        name = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
        if typing.get_origin(hint) is typing.Literal:
            name = "one of " + ", ".join(map(str, typing.get_args(hint)))
        raise OptionError(f"{what} must be {name.replace('typing.', '')}; got {value!r}.") from None


def _conform(value: Any, hint: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for arm in args:
            try:
                return _conform(value, arm)
            except (TypeError, ValueError):
                continue
        raise TypeError
    if origin is typing.Literal:
        if value in args:
            return value
        raise ValueError
    if origin is tuple and isinstance(value, list | tuple):
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_conform(v, args[0]) for v in value)
        if len(args) == len(value):
            return tuple(_conform(v, a) for v, a in zip(value, args))
        raise ValueError
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is None or hint is type(None):
        if value is None:
            return None
        raise TypeError
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise TypeError


def parse(text: str) -> Any:
    """Read a command-line value: JSON-like numbers, true/false/none, comma lists, else the text itself.

    >>> parse("40"), parse("1e-3"), parse("1,2,2"), parse("none"), parse("heun"), parse("[16]")
    (40, 0.001, (1, 2, 2), None, 'heun', (16,))
    """
    text = text.strip()
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    if lowered in ("none", "null"):
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    if text[:1] in "[(" and text[-1:] in "])" and text:
        inner = text[1:-1].strip().rstrip(",")
        return tuple(parse(part) for part in inner.split(",")) if inner else ()
    if "," in text:
        return tuple(parse(part) for part in text.rstrip(",").split(","))
    return text


def summary(entry: Callable[..., Any]) -> str:
    """Return the first docstring line of an entry."""
    return (inspect.getdoc(entry) or "(undocumented)").splitlines()[0]
