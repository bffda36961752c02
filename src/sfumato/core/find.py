"""Find the parts of an axis by name.

The parts of an axis (`core.axes`) stand in a module of small functions (`sfumato.schedules`), in a package with one
file per part (`sfumato.samplers`, part ``heun`` = function ``heun`` in ``heun.py``), or in a package whose files hold
several each (`sfumato.recipes`, whose `__init__` says ``SEVERAL_PER_FILE = True``: every public function is one).
Nothing is registered: a part exists because its function stands there under its name with a docstring, so a new one is
listed, checked and tested by existing. A part from anywhere else is named "module.path:function" (`core.outside`).

Options given for a part are checked against its own signature: unknown names and ill-typed values are errors that
name the nearest valid ones.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sfumato.core import outside
from sfumato.core.axes import AXES, axis_named
from sfumato.core.errors import OptionError as OptionError
from sfumato.core.errors import UnknownNameError as UnknownNameError
from sfumato.core.errors import nearest as nearest


def entries(axis: str) -> dict[str, Callable[..., Any]]:
    """Return the parts of an axis that this package has, as name -> function, sorted by name, with dashes in names."""
    return dict(_entries(axis_named(axis)))


def _entries(axis: str) -> Mapping[str, Callable[..., Any]]:
    module = importlib.import_module(f"sfumato.{AXES[axis].module}")
    return _looked_up(module, tuple(getattr(module, "__path__", ())))


@functools.cache
def _looked_up(module: types.ModuleType, path: tuple[str, ...]) -> Mapping[str, Callable[..., Any]]:
    """Look up the parts in a module, or in the folders of a package as they stood when first asked."""
    if not path:
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


def find(axis: str, name: str, code: str = "") -> Callable[..., Any]:
    """Return the part of an axis called `name` (dashes and underscores are the same).

    Arguments:
        axis: Its name, such as "sampler" (`core.axes`).
        name: The name of a part, or "module.path:function" for one from outside that is allowed (`core.outside`).
        code: Hash of the source that a part from outside must have; "" for any.

    Raises:
        UnknownNameError: With the nearest name, and all available ones unless they are many.
        OptionError: If a part from outside does not fit the axis, or has changed.
    """
    axis = axis_named(axis)
    if ":" in name:
        return outside.load(axis, name, code)
    available = _entries(axis)
    key = name.replace("_", "-")
    if key not in available:
        raise UnknownNameError(nearest(axis, name, available, f"sfumato list {axis}"))
    return available[key]


def find_named(axis: str, name: str) -> Callable[..., Any]:
    """Return the part that a person has named, who thereby allows its module; arguments and errors as for `find`."""
    outside.allow_named(name)
    return find(axis, name)


@functools.lru_cache(maxsize=1024)
def signature(entry: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a part, which is read once: a plan asks for it hundreds of times."""
    return inspect.signature(entry)


def options_of(entry: Callable[..., Any], *, fixed: Iterable[str] = ()) -> dict[str, inspect.Parameter]:
    """Return the options a person may set: parameters with a default that the caller does not fix itself."""
    taken = set(fixed)
    return {
        p.name: p
        for p in signature(entry).parameters.values()
        if p.name not in taken and p.default is not inspect.Parameter.empty
    }


def type_hints(thing: Any, include_extras: bool = False) -> Mapping[str, Any]:
    """Return the annotations of a function or a class, evaluated once; arguments as for `typing.get_type_hints`."""
    return _type_hints(thing, include_extras)


@functools.lru_cache(maxsize=1024)
def _type_hints(thing: Any, include_extras: bool) -> Mapping[str, Any]:
    return types.MappingProxyType(typing.get_type_hints(thing, include_extras=include_extras))


def hints_of(entry: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the types of a part's parameters, by name."""
    return type_hints(getattr(entry, "__init__") if isinstance(entry, type) else entry)  # noqa: B009


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
    hints = hints_of(entry)
    checked = {}
    for key, value in options.items():
        if key not in allowed:
            none = f"{what} takes no options; got {key}={value}."
            raise OptionError(nearest(f"option of {what}", key, allowed) if allowed else none)
        checked[key] = conform(f"{what}: {key}", value, hints.get(key, Any))
    return checked


def conform(what: str, value: Any, hint: Any) -> Any:
    """Return `value` as the annotated type, or raise `OptionError` naming the rule and the value.

    >>> conform("steps", 18, float), conform("mult", [1, 2], tuple[int, ...])
    (18.0, (1, 2))
    """
    try:
        return _conform(value.item() if getattr(value, "ndim", None) == 0 else value, hint)  # a number of NumPy
    except (TypeError, ValueError):
        raise OptionError(f"{what} must be {in_words(hint)}; got {value!r}.") from None


COUNTS = {1: "one", 2: "two", 3: "three", 4: "four"}
WORDS: dict[Any, tuple[str, str]] = {  # type -> one of it, several
    float: ("a number", "numbers"),
    int: ("a whole number", "whole numbers"),
    str: ("text", "texts"),
    bool: ("true or false", "truths"),
    type(None): ("none", "none"),
    Path: ("a path", "paths"),
    Any: ("anything", "values"),
}


def in_words(hint: Any) -> str:
    """Say in words which values a type takes; what only code can make is left out where text can say another.

    >>> in_words(typing.Literal["ve", "flow", "vp"]), in_words(tuple[float, float] | None), in_words(tuple[int, ...])
    ('ve, flow or vp', 'two numbers or none', 'whole numbers with commas')
    """
    arms = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    told = [word for arm in arms for word in _written(arm)]
    words = list(dict.fromkeys(told)) or [f"a {getattr(arm, '__name__', 'function')}" for arm in arms]
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _written(hint: Any) -> list[str]:
    """Return in words the values that a type takes, if they can be written as text."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return [str(value) for value in args]
    if origin is tuple and args[1:] == (...,):
        return [f"{_several(args[0])} with commas"]
    if origin is tuple:
        if len(set(args)) > 1:
            return [" and ".join(map(in_words, args))]
        return [f"{COUNTS.get(len(args), len(args))} {_several(args[0])}"]
    if hint is bool:
        return ["true", "false"]
    return [WORDS[hint][0]] if hint in WORDS else []


def _several(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(map(_several, typing.get_args(hint)))
    return WORDS[hint][1] if hint in WORDS else in_words(hint)


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


def in_python(values: Any) -> Any:
    """Return a tensor, an array or a number of NumPy as a list or a number of Python, and anything else as it is."""
    return values.tolist() if hasattr(values, "tolist") else values


def several(values: Any) -> tuple[Any, ...]:
    """Return what may be one or several as a tuple: a text or a number alone is one.

    >>> several("fd"), several(["fd", "kid"]), several(0.5), several(())
    (('fd',), ('fd', 'kid'), (0.5,), ())
    """
    values = in_python(values)
    return (values,) if isinstance(values, str) or not isinstance(values, Iterable) else tuple(values)


def assigned(words: Iterable[str]) -> dict[str, str]:
    """Return the values that words NAME=VALUE give to names, as text; a hyphen in a name is an underscore.

    Raises:
        OptionError: For a name that stands twice, of whose values one would be lost.

    >>> assigned(["task=inpaint", "data-fit=3"])
    {'task': 'inpaint', 'data_fit': '3'}
    """
    found: dict[str, str] = {}
    for word in words:
        name, _, text = word.partition("=")
        key = name.strip().replace("-", "_")
        if key in found:
            raise OptionError(
                f"{key} is set twice ({key}={found[key]}, {key}={text.strip()}), and the second would replace the "
                "first. Give one."
            )
        found[key] = text.strip()
    return found


def meanings(entry: Callable[..., Any]) -> dict[str, str]:
    """Return what the docstring of a part, or of a dataclass, says of each argument or attribute, by name.

    >>> meanings(conform)
    {}
    >>> meanings(find)["axis"]
    'Its name, such as "sampler" (`core.axes`).'
    """
    doc = inspect.getdoc(entry) or ""
    section = re.search(r"^(?:Arguments|Attributes):\n((?:    .*\n?|\n)+)", doc, re.MULTILINE)
    found = re.findall(r"^    (\w[\w, ]*): (.*(?:\n        .*)*)", section[1] if section else "", re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for names, text in found for name in names.split(", ")}


def summary(entry: Callable[..., Any]) -> str:
    """Return the first docstring line of an entry."""
    return (inspect.getdoc(entry) or "(undocumented)").splitlines()[0]
