"""A part of a recipe: the name of an axis, the name of a part of it, and the options that differ from its defaults.

What a part asks for, and what its file says, is read from its own function here; `runs.plan` makes it.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sfumato.core import outside
from sfumato.core.axes import AXES, axis_named
from sfumato.core.find import OptionError, check_options, find, find_named, signature

MOST_SHOWN = 40  # values of an option that a table prints


class RecipeError(ValueError):
    """A recipe that cannot be built, or an override that does not fit it."""


@contextmanager
def explained(what: str = "") -> Iterator[None]:
    """Raise the reason that a part gives as a `RecipeError`, after what the recipe asked for.

    Arguments:
        what: Fields of the recipe in words; "" if the part names them itself.
    """
    try:
        yield
    except (RecipeError, OptionError):
        raise
    except ValueError as error:
        raise RecipeError(f"{what}: {error}" if what else str(error)) from None


@dataclass(frozen=True)
class Part:
    """Name a part of an axis and its options; make one with `part`.

    Attributes:
        axis: Its axis, e.g. "sampler".
        name: Its name on the axis, e.g. "heun", or "module.path:function".
        options: What differs from the part's own defaults.
        code: Hash of the source of a part from outside this package (`core.outside`); "" for the package's own.
    """

    axis: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""

    def __hash__(self) -> int:
        return hash((self.axis, self.name, self.code))  # options may hold lists; equal parts hash alike without them

    def entry(self) -> Callable[..., Any]:
        """Return the function this part names."""
        return find(self.axis, self.name, self.code)

    def checked(self, *given: str) -> dict[str, Any]:
        """Return its options with exact types, checked against the signature of its function.

        Arguments:
            given: Names of parameters that code sets, beside those of the axis.

        Raises:
            OptionError: For an option that it does not have, or an ill-typed value.
        """
        fixed = (*AXES[self.axis].fixed, *given)
        return check_options(f"{self.axis}={self.name}", self.entry(), self.options, fixed=fixed)

    def with_name(self, name: str) -> Part:
        """Return another part of the same axis, with its default options."""
        return part(self.axis, name)

    def with_options(self, **options: Any) -> Part:
        """Return the part with options replaced, checked against the signature of its function."""
        checked = dataclasses.replace(self, options=options).checked()
        return dataclasses.replace(self, options={**self.options, **checked})

    def __str__(self) -> str:
        inside = ", ".join(f"{k}={show(v)}" for k, v in self.options.items())
        return f"{self.name}({inside})" if inside else self.name


def part(axis: str, name: str | Callable[..., Any], **options: Any) -> Part:
    """Make a part with options; they are checked when the recipe is validated or built.

    Arguments:
        axis: Such as "sampler".
        name: Of a part of that axis, "module.path:function", or a function itself. Whoever names it allows its module.
        options: Of the part.
    """
    axis = axis_named(axis)
    if not isinstance(name, str):
        name, code = outside.hand_over(name)
        outside.load(axis, name, code)
        return Part(axis, name, options, code)
    if ":" in name:
        return Part(axis, name.strip(), options, outside.code_of(find_named(axis, name.strip())))
    return Part(axis, name.replace("_", "-"), options)


def asked(part: Part, offered: Collection[str]) -> list[str]:
    """Return which of the offered names the entry of a part asks for: its parameters that no option sets."""
    return [name for name in parameters(part.entry()) if name in offered and name not in part.options]


def parameters(entry: Callable[..., Any]) -> list[str]:
    """Return the names of a function's parameters."""
    return list(signature(entry).parameters)


def asks(part: Part, name: str) -> bool:
    """Return whether the entry of a part takes a parameter of this name."""
    return name in parameters(part.entry())


def needs(part: Part, name: str) -> bool:
    """Return whether the entry of a part takes a parameter of this name and has no default for it."""
    parameter = signature(part.entry()).parameters.get(name)
    return parameter is not None and parameter.default is inspect.Parameter.empty


def option(part: Part, name: str) -> Any:
    """Return the value of a part's option, given or default; None if it has no such option."""
    known = signature(part.entry()).parameters
    return part.options.get(name, known[name].default) if name in known else None


def constant(part: Part, name: str) -> Any:
    """Return what the file of a part calls `name`; None if it has nothing of that name."""
    return vars(sys.modules[part.entry().__module__]).get(name)


def show(value: Any) -> str:
    """Return a value of a field or an option as tables and messages print it."""
    if isinstance(value, list | tuple):
        if len(value) > MOST_SHOWN:
            return f"{show(value[:2])},...,{show(value[-1])} [{len(value)}]"
        return ",".join(show(v) for v in value) if value else "()"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if value in (True, False) else str(value)
