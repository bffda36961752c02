"""Parts that stand outside this package: "module.path:function", or a function handed over in Python.

What a person names is imported; what a file names is not. A run, a checkpoint or a picture may ask for code of any
module, so its module must be allowed first: named on the command line (``--sampler my_module:walk``, ``--with
my_module``), in the variable SFUMATO_WITH (several with commas), by `allow` in Python, or by handing over the function
itself. The current folder is searched after the installed packages; nothing is imported from inside a run's folder.

A run that needs such a part records a hash of the module that holds it, and refuses to load with another one. What that
module imports in turn is not hashed.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from sfumato.core.axes import AXES
from sfumato.core.errors import OptionError, UnknownNameError, nearest

WITH = "SFUMATO_WITH"
NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
Entry = Callable[..., Any]

_handed: dict[tuple[str, str], Entry] = {}  # functions handed over in Python: (name, hash of the source) -> function


def allow(*modules: str) -> None:
    """Allow files to name parts of these modules.

    Arguments:
        modules: Dotted names; a package allows its modules.
    """
    os.environ[WITH] = ",".join(dict.fromkeys([*_allowed(), *modules]))


def _allowed() -> list[str]:
    """Return the modules that a person has named; processes started by this one know them too."""
    return [word.strip() for word in os.environ.get(WITH, "").split(",") if word.strip()]


def allow_named(*names: str) -> None:
    """Allow the modules of those names that read "module:function": a person has named them.

    Arguments:
        names: Any text that a person has given.
    """
    allow(*(match[1] for name in names if (match := NAME.fullmatch(name.strip()))))


def hand_over(entry: Entry) -> tuple[str, str]:
    """Remember a function that a person handed over; return its name, "module:function", and the hash of its source.

    Raises:
        OptionError: If it is neither function nor class, or its results depend on variables around it.
    """
    if not (inspect.isfunction(entry) or inspect.isclass(entry)):
        raise OptionError(f"A part is a function with a docstring; got {entry!r:.80}.")
    if inspect.isfunction(entry) and entry.__closure__:
        around = ", ".join(entry.__code__.co_freevars)
        raise OptionError(
            f"A part depends on its arguments only, so that a record of it is complete; {entry.__qualname__} uses "
            f"{around} of the function around it. Make that an option: a parameter with a default."
        )
    key = f"{entry.__module__}:{entry.__qualname__}", code_of(entry)
    _handed[key] = entry
    return key


def load(axis: str, name: str, code: str = "") -> Entry:
    """Return the function that "module:function" names, once it is allowed and fits its axis.

    Arguments:
        axis: On which it is used.
        name: The part as "module.path:function".
        code: Hash of the source that is wanted (`code_of`); "" for any.

    Raises:
        UnknownNameError: If its module may not be imported or is not there, or has no such function.
        OptionError: If it does not fit the axis, or its source is not the wanted one.
    """
    entry = _handed.get((name, code)) or _imported(axis, name)
    check(axis, name, entry)
    if code and code_of(entry) != code:
        raise OptionError(
            f"{axis} {name} has changed: its module has the hash {code_of(entry)}, and the one recorded is {code}. "
            f"Restore that code, or choose the {axis} anew: {axis}={name}."
        )
    return entry


def _imported(axis: str, name: str) -> Entry:
    match = NAME.fullmatch(name)
    if match is None:
        raise UnknownNameError(
            f"A {axis} from outside reads module.path:function, and must be in a file to be found again; got {name!r}."
        )
    module, function = match.groups()
    _refuse_unnamed(axis, name, module)
    found = vars(_module(axis, name, module))
    if function not in found:
        own = [k for k, v in found.items() if inspect.isfunction(v) and not k.startswith("_")]
        raise UnknownNameError(nearest(f"function of {module}", function, own))
    return found[function]


def _refuse_unnamed(axis: str, name: str, module: str) -> None:
    """Refuse a module that no person has named."""
    if not any(f"{module}.".startswith(f"{each}.") for each in _allowed()):
        raise UnknownNameError(
            f"The {axis} {name} is code outside sfumato, and a file does not decide what is imported. If you trust "
            f"{module}, allow it: --with {module}, {WITH}={module}, or sfumato.allow({module!r}) in Python."
        )


def _module(axis: str, name: str, module: str) -> ModuleType:
    """Import a module, package by package, unless one of them lies inside a run."""
    here, parts = str(Path.cwd()), module.split(".")
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    if module not in sys.modules:
        importlib.invalidate_caches()
    try:
        for k in range(len(parts)):
            _refuse_run(axis, name, ".".join(parts[: k + 1]))
        return importlib.import_module(module)
    except UnknownNameError:
        raise
    except ModuleNotFoundError as error:
        raise UnknownNameError(
            f"The {axis} {name} needs the module {error.name}, which is not there. Install it, or run where "
            f"{parts[0]}.py lies (the current folder is searched)."
        ) from None
    except Exception as error:
        raise OptionError(f"{axis} {name}: {module} cannot be imported ({type(error).__name__}: {error}).") from error


def _refuse_run(axis: str, name: str, module: str) -> None:
    """Refuse a module that would be imported from inside a run; its package has been imported."""
    spec = sys.modules[module].__spec__ if module in sys.modules else importlib.util.find_spec(module)
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    for place in (Path(place).resolve() for place in places if place):
        if run := next((folder for folder in (place, *place.parents) if (folder / "recipe.json").exists()), None):
            raise UnknownNameError(
                f"The {axis} {name} lies inside the run {run}, and nothing is imported from a run. Move {module} out."
            )


def check(axis: str, name: str, entry: Any) -> None:
    """Refuse what is no part of an axis: without docstring, or with parameters that the axis does not fill in.

    Arguments:
        axis: On which it is used.
        name: What messages call the part.
        entry: What was found under that name.

    Raises:
        OptionError: Naming the rule, what was found, and what to change.
    """
    kind = AXES[axis]
    if not (inspect.isfunction(entry) or inspect.isclass(entry)):
        raise OptionError(f"{axis} {name} must be a function; got {type(entry).__name__} {entry!r:.60}.")
    if not (entry.__doc__ or "").strip():
        raise OptionError(f"{axis} {name} has no docstring; its first line says what it is. Write one.")
    signature = inspect.signature(entry)
    try:
        bound = signature.bind_partial(*kind.given, **dict.fromkeys(kind.named)).arguments
    except TypeError:
        bound = None
    kinds = inspect.Parameter
    lacking = [
        p.name
        for p in signature.parameters.values()
        if p.default is kinds.empty
        and p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
        and p.name not in {*(bound or ()), *kind.offered}
    ]
    if bound is None or lacking:
        why = f"its parameter {lacking[0]!r} has no default" if bound is not None else "it cannot be called so"
        offered = f", may ask for {', '.join(kind.offered)}" if kind.offered else ""
        raise OptionError(
            f"{axis} {name} does not fit its axis: {why}. A {axis} is called as {kind.call}{offered}, and its options "
            f"have defaults; got {name}{signature}."
        )
    for constant in kind.constants:
        if constant not in vars(sys.modules[entry.__module__]):
            raise OptionError(f"{axis} {name}: its module {entry.__module__} must define {constant}. Add it.")


def code_of(entry: Entry) -> str:
    """Return a hash of the source of a part: of its module's file, or its own where there is none (a notebook).

    Raises:
        OptionError: If there is no source to be read.
    """
    for source in (sys.modules.get(entry.__module__), entry):
        try:
            return hashlib.sha256(inspect.getsource(source).encode()).hexdigest()[:16]  # type: ignore[arg-type]
        except (OSError, TypeError):
            continue
    raise OptionError(
        f"The source of {entry.__qualname__} cannot be read, so no run could record it. Put it in a file."
    )
