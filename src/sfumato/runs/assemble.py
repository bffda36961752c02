"""Assembly: from the parts a recipe names to the objects that train and sample.

Parts of different rooms never import each other; they meet here. An entry receives, by parameter name, what it asks
for and the recipe knows:

    table       levels of a discrete schedule, (1, 0) first       (grids.full, draws.uniform, conditioning.index)
    schedule    the schedule itself, t -> Level                   (grids.uniform, draws.uniform)
    sigma_data  standard deviation of the data                    (target edm, weighting edm)
    variance    the network's learned variance                    (objectives hybrid, vlb)
    draw, weighting, seed, batch, images, teacher                 (objectives)
    channels, out_channels, classes, size, augments               (networks)

Asking for a table under a continuous schedule is refused here, when the recipe is built, not after an hour; so is
every other combination that `runs.check` knows cannot work.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.core.axes import AXES
from sfumato.core.classifier import NoisyClassifier
from sfumato.core.denoiser import Preconditioned, unit_circle, unit_line, unit_variance
from sfumato.core.find import check_options
from sfumato.core.level import Level
from sfumato.data.augment import LABELS
from sfumato.runs.recipe import Part, Recipe, RecipeError

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
SCALES: dict[str, Callable[[float], Callable[[Level], Tensor] | None]] = {  # sigma_data -> c_in
    "one": lambda sigma_data: None,
    "unit-variance": unit_variance,
    "unit-circle": lambda sigma_data: unit_circle(),
    "unit-line": lambda sigma_data: unit_line(),
}


def make(part: Part, context: Mapping[str, Any]) -> Any:
    """Call the entry a part names with its options and with what it asks of the context.

    Raises:
        RecipeError: If the entry needs something the recipe does not have.
        OptionError: If an option does not fit its signature.
    """
    entry = part.entry()
    parameters = inspect.signature(entry).parameters
    known = {k: v for k, v in context.items() if k in parameters and k not in part.options}
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
    return entry(**known, **options)


def asks(part: Part, name: str) -> bool:
    """Return whether the entry of a part takes a parameter of this name."""
    return name in inspect.signature(part.entry()).parameters


def needs(part: Part, name: str) -> bool:
    """Return whether the entry of a part takes a parameter of this name and has no default for it."""
    parameter = inspect.signature(part.entry()).parameters.get(name)
    return parameter is not None and parameter.default is inspect.Parameter.empty


def option(part: Part, name: str) -> Any:
    """Return the value of a part's option, given or default; None if it has no such option."""
    parameters = inspect.signature(part.entry()).parameters
    return part.options.get(name, parameters[name].default) if name in parameters else None


def constant(part: Part, name: str) -> Any:
    """Return what the file of a part calls `name`; None if it has nothing of that name."""
    return vars(sys.modules[part.entry().__module__]).get(name)


def trains(recipe: Recipe) -> str:
    """Return what the recipe's objective trains, the constant TRAINS of its file: a key of `MODELS`."""
    return str(constant(recipe.objective, "TRAINS"))


def context_of(recipe: Recipe) -> dict[str, Any]:
    """Return what a resolved recipe offers to its parts, by parameter name."""
    if recipe.shape is None or recipe.sigma_data is None:
        raise RecipeError("This recipe is not resolved: its shape and sigma_data come from the data. Use resolve().")
    schedule = make(recipe.schedule, {})
    context: dict[str, Any] = {
        "schedule": schedule,
        "sigma_data": recipe.sigma_data,
        "variance": recipe.variance,
        "channels": recipe.shape.channels,
        "out_channels": recipe.shape.channels * (1 if recipe.variance == "none" else 2),
        "classes": len(recipe.shape.classes) if recipe.data.labels else 0,
        "size": recipe.shape.height,
        "augments": LABELS if recipe.data.augment else 0,
    }
    table = getattr(schedule, "levels", None)
    if isinstance(table, Level):
        context["table"] = table
    return context


@contextmanager
def _initialised(recipe: Recipe) -> Iterator[None]:
    """Address torch's own generator, from which layers initialise, by the recipe's seed; leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        yield


def build_network(recipe: Recipe, device: torch.device | str = "cpu") -> nn.Module:
    """Make the recipe's network with weights initialised from its own seed, in channels_last.

    Arguments:
        recipe: Resolved.
        device: Where it goes; on "meta" it has shapes and no weights, and costs no memory.

    Raises:
        RecipeError: If its options make no network, such as a width of 0.
    """
    meta, context = torch.device(device).type == "meta", context_of(recipe)
    try:
        with _initialised(recipe), torch.device("meta") if meta else nullcontext():
            network: nn.Module = make(recipe.network, context)
    except (ArithmeticError, LookupError, RuntimeError, AssertionError) as error:
        raise RecipeError(
            f"network={recipe.network} cannot be built ({type(error).__name__}: {error}). Its sizes are counts of at "
            f"least 1; see `sfumato explain {recipe.name}`."
        ) from error
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _conditioning(recipe: Recipe) -> dict[str, Any]:
    """Return how a network is asked at a level: the arguments shared by denoisers and classifiers."""
    context = context_of(recipe)
    return {
        "c_noise": make(recipe.c_noise, context),
        "c_in": SCALES[recipe.c_in](context["sigma_data"]),
        "table": context.get("table") if asks(recipe.c_noise, "table") else None,
        "autocast": PRECISIONS[recipe.train.precision],
    }


def build_denoiser(recipe: Recipe, network: nn.Module) -> Preconditioned:
    """Make the recipe's denoiser around a network."""
    target = make(recipe.target, context_of(recipe))
    return Preconditioned(network, target, variance=recipe.variance, **_conditioning(recipe))


def build_classifier(recipe: Recipe, network: nn.Module) -> NoisyClassifier:
    """Make the recipe's noisy classifier around a network."""
    return NoisyClassifier(network, **_conditioning(recipe))


def build_generator(recipe: Recipe, network: nn.Module) -> nn.Module:
    """Return the network itself: it is asked for images with latents, not at a noise level."""
    return network


MODELS: dict[str, Callable[[Recipe, nn.Module], nn.Module]] = {
    "denoiser": build_denoiser,
    "classifier": build_classifier,
    "generator": build_generator,
}


def build_model(recipe: Recipe, network: nn.Module) -> nn.Module:
    """Make what the recipe's objective trains around a network."""
    return MODELS[trains(recipe)](recipe, network)


def build_objective(
    recipe: Recipe, draw: Callable[[Tensor], Level], device: torch.device | str = "cpu"
) -> Callable[..., Any]:
    """Make the recipe's objective; one that owns learned numbers starts from the recipe's seed.

    Arguments:
        recipe: Resolved.
        draw: The recipe's draw, made by the caller, who may have to update it.
        device: Of the learned numbers.
    """
    context = context_of(recipe)
    context |= {"draw": draw, "weighting": make(recipe.weighting, context)}
    context |= {"seed": recipe.train.seed, "batch": recipe.train.batch, "images": recipe.train.images}
    if asks(recipe.objective, "teacher"):
        context["teacher"] = build_denoiser(recipe, build_network(recipe, device))
    with _initialised(recipe):
        objective: Callable[..., Any] = make(recipe.objective, context)
    return objective.to(device) if isinstance(objective, nn.Module) else objective


def build_grid(recipe: Recipe) -> Level:
    """Make the grid that the recipe samples on."""
    grid: Level = make(recipe.sample.grid, context_of(recipe))
    return grid


def build_sampler(recipe: Recipe, **bound: Any) -> Callable[..., Any]:
    """Return the recipe's sampler with its options bound, and others that only code can give (a shift)."""
    chosen = recipe.sample.sampler
    fixed = (*AXES["sampler"].fixed, *bound)
    options = check_options(f"sampler '{chosen.name}'", chosen.entry(), chosen.options, fixed=fixed) | bound
    entry = chosen.entry()
    return lambda denoiser, x, grid, *, noise, label=None: entry(denoiser, x, grid, noise=noise, label=label, **options)
