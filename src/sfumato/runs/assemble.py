"""Making: from the part that a recipe names to what its entry returns.

Parts of different axes never import each other; they meet here. An entry receives, by parameter name, what it asks for
and the recipe offers; what is offered under which name is `runs.plan`'s to say. Options are checked against the entry's
own signature, so a new option needs no second place.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_module_registration_hook

from sfumato.core.axes import AXES
from sfumato.core.denoiser import unit_circle, unit_line, unit_variance
from sfumato.core.find import check_options, signature
from sfumato.core.level import Level
from sfumato.runs.recipe import Part, RecipeError


class Precision(NamedTuple):
    """How a network computes.

    Attributes:
        autocast: dtype of its products; None for that of its weights.
        fewer_products: Whether its 3x3 convolutions may take fewer of them (`networks._winograd`).
    """

    autocast: torch.dtype | None = None
    fewer_products: bool = False


LAYERS = 5_000
"""The most layers of a network; ADM's of 512 pixels has 556."""
PRECISIONS = {
    "fp32": Precision(),
    "bf16": Precision(torch.bfloat16),
    "bf16-winograd": Precision(torch.bfloat16, fewer_products=True),
}
SCALES: dict[str, Callable[..., Callable[[Level], Tensor] | None]] = {  # c_in -> what makes it, asked by parameter name
    "one": lambda: None,
    "unit-variance": unit_variance,
    "unit-circle": unit_circle,
    "unit-line": unit_line,
}


def make(part: Part, context: Mapping[str, Any]) -> Any:
    """Call the entry a part names with its options and with what it asks of the context.

    Raises:
        RecipeError: If the entry needs something the recipe does not have, or refuses its options without its name.
        OptionError: If an option does not fit its signature.
    """
    entry = part.entry()
    parameters = signature(entry).parameters
    known = {name: context[name] for name in asked(part, context)}
    options = check_options(f"{part.axis}={part.name}", entry, part.options)
    for p in parameters.values():
        if p.default is inspect.Parameter.empty and p.name not in known and p.name not in options:
            remedy = (
                "a discrete schedule, such as schedule=linear or schedule=cosine"
                if p.name == "table"
                else f"the option {p.name}=..."
            )
            where = f"{part.axis}={part.name}"
            raise RecipeError(f"{where} needs {p.name!r}, which this recipe does not have. Give {remedy}.")
    try:
        return entry(**known, **options)
    except ValueError as error:
        if type(error) is not ValueError or part.name in str(error):
            raise
        raise RecipeError(f"{part.axis}={part.name}: {error}") from error


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


def bound_sampler(part: Part, **bound: Any) -> Callable[..., Any]:
    """Return a sampler with its options bound, and others that only code can give (a shift)."""
    entry = part.entry()
    options = (
        check_options(f"sampler '{part.name}'", entry, part.options, fixed=(*AXES["sampler"].fixed, *bound)) | bound
    )
    return lambda denoiser, x, grid, *, noise, label=None: entry(denoiser, x, grid, noise=noise, label=label, **options)


@contextmanager
def bounded() -> Iterator[None]:
    """Refuse a network of more than `LAYERS` layers while it is built: a file may ask for any number.

    Raises:
        RecipeError: If there are more.
    """
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1
        if count > LAYERS:
            raise RecipeError(f"A network has at most {LAYERS:,} layers; this one has more. Give it fewer blocks.")

    handle = register_module_module_registration_hook(counted)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def initialised(seed: int) -> Iterator[None]:
    """Address torch's own generator, from which layers initialise, by a recipe's seed; leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
