"""Check a recipe: combinations that cannot work are refused when it is built, each by a rule and with a remedy.

    numbers             none is NaN, and counts count something (`runs.check_numbers`)
    what is trained     an image network for a denoiser, logits for a classifier, at least two classes; a generator has
                        no noise levels, so no field may speak of them
    levels              what the draw visits and the sampler walks must be levels the network knows, at its scale
    learned variance    a head, an objective that trains it, and a sampler that reads that kind of head
    guidance            labels, a model that has learned to do without them, an interval inside the grid
    guides              weak models and classifiers: trained on the model's own images and classes, at its levels
    augmentation        a network that can be told of it
    coupling            a batch that is not cut into pieces

An option that its own entry refuses is refused there: the parts are made, so their messages come through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor

from sfumato.core.denoiser import Prediction
from sfumato.core.level import Level, index_in
from sfumato.networks._count import cost
from sfumato.runs.assemble import (
    asks,
    build_grid,
    build_network,
    build_objective,
    build_sampler,
    context_of,
    make,
    option,
    trains,
)
from sfumato.runs.check_guidance import check_guidance, check_guides, explained
from sfumato.runs.check_numbers import check_numbers
from sfumato.runs.recipe import Part, Recipe, RecipeError, Sample

HEADS = {"learned": "range", "diagonal": "diagonal"}  # a sampler's variance -> the head it reads
QUANTILES = 16  # of the draw, at which its levels are checked


def check(recipe: Recipe) -> None:
    """Refuse a recipe whose parts cannot work together, before any work is done.

    The parts are made; then the levels that training visits are compared with those the network knows, and the sampler
    walks its grid once on one pixel with a stand-in for the network.

    Arguments:
        recipe: With its shape; sigma_data may still be unknown.

    Raises:
        RecipeError: Naming the rule, what was found, and what to set instead.
        OptionError, ValueError: From a part that refuses its own options.
    """
    check_numbers(recipe)
    recipe = replace(recipe, sigma_data=recipe.sigma_data or 0.5)
    context = context_of(recipe)
    kind = trains(recipe)
    _check_network(recipe, kind)
    if kind == "generator":
        check_generator(recipe)
    draw = make(recipe.draw, context)
    for made in (recipe.c_noise, recipe.target):
        make(made, context)
    build_objective(recipe, draw, "meta")
    build_network(recipe, "meta")  # refuses its own options; costs no memory
    _check_budget(recipe)
    discrete = [p for p in (recipe.c_noise, recipe.target, recipe.weighting, recipe.objective) if asks(p, "table")]
    if discrete:
        what = f"{discrete[0].axis}={discrete[0].name} knows the levels of schedule={recipe.schedule.name} only"
        with explained(f"{what}, and draw={recipe.draw} visits others; draw=uniform visits them"):
            index_in(context["table"], draw(_quantiles()))
    if kind == "denoiser":
        if recipe.variance != "none" and not asks(recipe.objective, "variance"):
            raise RecipeError(
                f"variance={recipe.variance} gives the network a second head, which objective={recipe.objective.name} "
                "does not train. Set objective=hybrid or objective=vlb, or variance=none."
            )
        check_sampling(recipe)


def _check_budget(recipe: Recipe) -> None:
    """Refuse an objective without what it must be given beyond the recipe's parts."""
    if asks(recipe.objective, "images") and recipe.train.minutes is not None:
        raise RecipeError(
            f"objective={recipe.objective.name} divides a budget of images into stages, and train.minutes="
            f"{recipe.train.minutes:g} leaves it open. Set train.minutes=none and train.images."
        )
    if asks(recipe.objective, "teacher") and recipe.train.start is None:
        raise RecipeError(
            f"objective={recipe.objective.name} halves the steps of a trained model, and train.start names none. Set "
            "train.start=RUN, a run of the same network, target and conditioning."
        )


def _quantiles() -> Tensor:
    return (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES


RETURNS = {  # kind of network -> what it returns, and one of the kind
    "denoiser": ("images at a noise level", "unet"),
    "classifier": ("logits", "adm-classifier"),
    "generator": ("images of latents", "dcgan"),
}


def _kind_of(network: Part) -> str:
    """Return what can be trained with a network, by what its entry takes."""
    return "generator" if asks(network, "latent") else "denoiser" if asks(network, "out_channels") else "classifier"


def _check_network(recipe: Recipe, kind: str) -> None:
    found = _kind_of(recipe.network)
    if found != kind:
        raise RecipeError(
            f"objective={recipe.objective.name} trains a {kind}, which returns {RETURNS[kind][0]}, and network="
            f"{recipe.network.name} returns {RETURNS[found][0]}. Use network={RETURNS[kind][1]}, for example."
        )
    if not 0 <= recipe.data.augment <= 1:
        raise RecipeError(f"data.augment is a probability in [0, 1]; got {recipe.data.augment:g}.")
    if recipe.data.augment and not asks(recipe.network, "augments"):
        raise RecipeError(
            f"data.augment={recipe.data.augment:g} tells the network what was done to its images, and "
            f"network={recipe.network.name} cannot be told. Use network=songunet or network=adm, or data.augment=0."
        )
    if option(recipe.objective, "coupling") == "ot" and recipe.train.micro is not None:
        raise RecipeError(
            "objective.coupling=ot pairs images with noises over the whole batch, and "
            f"train.micro={recipe.train.micro} cuts it. Set train.micro=none, or a smaller train.batch."
        )


LEVELS = ("schedule", "target", "c_noise", "c_in", "variance", "draw", "weighting")  # fields that speak of noise levels


def check_generator(recipe: Recipe) -> None:
    """Refuse fields that speak of noise levels or of a walk, which a generator has not; part of `check`.

    Arguments:
        recipe: Resolved.

    Raises:
        RecipeError: Naming the field.
    """
    blank, sample = Recipe(recipe.name), Sample(batch=recipe.sample.batch)
    set_here = [name for name in LEVELS if getattr(recipe, name) != getattr(blank, name)]
    names = [f.name for f in fields(sample)]
    set_here += [f"sample.{name}" for name in names if getattr(recipe.sample, name) != getattr(sample, name)]
    if set_here:
        raise RecipeError(
            f"{set_here[0]} speaks of noise levels, and objective={recipe.objective.name} trains a generator, which "
            "makes an image in one pass and has none. Leave it out."
        )
    if recipe.train.micro is not None:
        raise RecipeError(
            f"BatchNorm looks at the whole batch, and train.micro={recipe.train.micro} cuts it. Set train.micro=none, "
            "or a smaller train.batch."
        )


def check_sampling(recipe: Recipe) -> None:
    """Refuse a sampler, grid or guidance that the trained network does not allow; part of `check`.

    Arguments:
        recipe: Resolved.

    Raises:
        RecipeError: Naming the rule, what was found, and what to set instead.
    """
    check_numbers(recipe)
    wanted = option(recipe.sample.sampler, "variance")
    if HEADS.get(wanted, recipe.variance) != recipe.variance:
        raise RecipeError(
            f"sample.sampler.variance={wanted} reads a learned variance (variance={HEADS[wanted]}), and this recipe "
            f"has variance={recipe.variance}. Set variance={HEADS[wanted]} with objective=hybrid, or "
            "sample.sampler.variance=small or large."
        )
    sampled_shape(recipe)
    check_guidance(recipe)
    check_guides(recipe, _walk(recipe))


def sampled_shape(recipe: Recipe) -> tuple[int, int, int]:
    """Return the shape (C, H, W) of sampled images, refusing a size that the network cannot take.

    Arguments:
        recipe: Resolved.

    Raises:
        RecipeError: Naming the nearest sizes.
    """
    shape, size = recipe.shape, recipe.sample.size
    if shape is None:
        raise RecipeError(f"{recipe.name} has no image shape yet; it comes from the data.")
    trained = (shape.channels, shape.height, shape.width)
    if not size:
        return trained
    if len(size) > 2 or min(size) < 1:
        raise RecipeError(f"sample.size is one number, or height and width, in pixels; got {size}.")
    sampled = (shape.channels, size[0], size[-1])
    with explained(f"sample.size={','.join(map(str, size))}"):
        cost(build_network(recipe, "meta"), sampled)  # called without values: the network says what it cannot take
    return sampled


def _walk(recipe: Recipe) -> Level:
    """Let the sampler walk the grid on one pixel, with a stand-in for the network; return the levels it asked for.

    They must be levels that the network knows.
    """
    context = context_of(recipe)
    seen: list[Level] = []

    def stand_in(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        seen.append(level)
        return Prediction(0 * x, None if recipe.variance == "none" else 0 * x)

    with explained(f"sample.sampler={recipe.sample.sampler} cannot walk sample.grid={recipe.sample.grid}"):
        grid, x = build_grid(recipe), torch.zeros(1, 1, 1, 1)
        for _ in build_sampler(recipe)(stand_in, x, grid, noise=lambda step: x):
            pass
        visited = Level(torch.cat([v.alpha.reshape(-1) for v in seen]), torch.cat([v.sigma.reshape(-1) for v in seen]))
        if asks(recipe.c_noise, "table"):
            index_in(context["table"], visited)
        if recipe.c_in == "one":
            _check_scale(visited, make(recipe.draw, context)(_quantiles()))
    return visited


def _check_scale(visited: Level, trained: Level) -> None:
    """Refuse levels that are not on the scale of training, where the network's input is not rescaled."""
    scales = _scales(trained)
    if scales and not any(_close(scale(visited)) for scale in scales.values()):
        off = (next(iter(scales.values()))(visited) - 1).abs().argmax()
        raise ValueError(
            f"it asks for the level ({float(visited.alpha[off]):.4g}, {float(visited.sigma[off]):.4g}), and with "
            f"c_in=one the network was trained where {' or '.join(scales)} = 1 only. Take a grid of the schedule "
            "(uniform, flow), or set c_in=unit-circle, unit-line or unit-variance."
        )


def _scales(levels: Level) -> dict[str, Callable[[Level], Tensor]]:
    """Return those measures of a level's scale that are 1 at all of the levels."""
    known: dict[str, Callable[[Level], Tensor]] = {
        "alpha": lambda level: level.alpha,
        "alpha^2 + sigma^2": lambda level: level.alpha**2 + level.sigma**2,
        "alpha + sigma": lambda level: level.alpha + level.sigma,
    }
    return {name: scale for name, scale in known.items() if _close(scale(levels))}


def _close(scale: Tensor) -> bool:
    return bool(((scale - 1).abs() < 1e-6).all())
