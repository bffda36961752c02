"""Assembly: from the parts a recipe names to the objects that train and sample.

Parts of different rooms never import each other; they meet here. An entry receives, by parameter name, what it asks
for and the recipe knows:

    table       levels of a discrete schedule, (1, 0) first       (grids.full, draws.uniform, conditioning.index)
    schedule    the schedule itself, t -> Level                   (grids.uniform, draws.uniform)
    sigma_data  standard deviation of the data                    (target edm, weighting edm)
    channels, out_channels, classes, size                         (networks)

Asking for a table under a continuous schedule is refused here, when the recipe is built, not after an hour.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from sfumato.core.denoiser import Preconditioned, unit_variance
from sfumato.core.find import check_options
from sfumato.core.level import Level
from sfumato.training.recipe import Part, Recipe, RecipeError

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


def make(part: Part, context: Mapping[str, Any]) -> Any:
    """Call the entry a part names with its options and with what it asks of the context.

    Raises:
        RecipeError: If the entry needs something the recipe does not have.
        OptionError: If an option does not fit its signature.
    """
    entry = part.entry()
    parameters = inspect.signature(entry).parameters
    known = {k: v for k, v in context.items() if k in parameters and k not in part.options}
    options = check_options(f"{part.room}.{part.name}", entry, part.options)
    for p in parameters.values():
        if p.default is inspect.Parameter.empty and p.name not in known and p.name not in options:
            remedy = (
                "a discrete schedule, such as schedule=linear or schedule=cosine"
                if p.name == "table"
                else f"the option {p.name}=..."
            )
            where = f"{part.room}.{part.name}"
            raise RecipeError(f"{where} needs {p.name!r}, which this recipe does not have. Give {remedy}.")
    return entry(**known, **options)


def context_of(recipe: Recipe) -> dict[str, Any]:
    """Return what a resolved recipe offers to its parts, by parameter name."""
    if recipe.shape is None or recipe.sigma_data is None:
        raise RecipeError("This recipe is not resolved: its shape and sigma_data come from the data. Use resolve().")
    schedule = make(recipe.schedule, {})
    context: dict[str, Any] = {
        "schedule": schedule,
        "sigma_data": recipe.sigma_data,
        "channels": recipe.shape.channels,
        "out_channels": recipe.shape.channels * (1 if recipe.variance == "none" else 2),
        "classes": len(recipe.shape.classes) if recipe.data.labels else 0,
        "size": recipe.shape.height,
    }
    table = getattr(schedule, "levels", None)
    if isinstance(table, Level):
        context["table"] = table
    return context


def build_network(recipe: Recipe, device: torch.device | str = "cpu") -> torch.nn.Module:
    """Make the recipe's network with weights initialised from its own seed, in channels_last."""
    context = context_of(recipe)
    with torch.random.fork_rng(devices=[]):  # layers initialise from the global generator; leave it as it was
        torch.manual_seed(recipe.train.seed)
        network: torch.nn.Module = make(recipe.network, context)
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def build_denoiser(recipe: Recipe, network: torch.nn.Module) -> Preconditioned:
    """Make the recipe's denoiser around a network."""
    context = context_of(recipe)
    return Preconditioned(
        network,
        make(recipe.target, context),
        c_noise=make(recipe.c_noise, context),
        c_in=unit_variance(context["sigma_data"]) if recipe.c_in == "unit-variance" else None,
        table=context.get("table") if "table" in inspect.signature(recipe.c_noise.entry()).parameters else None,
        variance=recipe.variance,
        autocast=PRECISIONS[recipe.train.precision],
    )


def build_grid(recipe: Recipe) -> Level:
    """Make the grid that the recipe samples on."""
    grid: Level = make(recipe.sample.grid, context_of(recipe))
    return grid


def build_sampler(recipe: Recipe) -> Callable[..., Any]:
    """Return the recipe's sampler with its options bound."""
    chosen = recipe.sample.sampler
    fixed = ("denoiser", "x", "grid", "noise", "label")
    options = check_options(f"sampler '{chosen.name}'", chosen.entry(), chosen.options, fixed=fixed)
    entry = chosen.entry()
    return lambda denoiser, x, grid, *, noise, label=None: entry(denoiser, x, grid, noise=noise, label=label, **options)
