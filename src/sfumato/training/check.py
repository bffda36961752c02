"""Check a recipe: combinations that cannot work are refused when it is built, each by a rule and with a remedy.

    what is trained     an image network for a denoiser, logits for a classifier, at least two classes
    levels              what the draw visits and the sampler walks must be levels the network knows, at its scale
    learned variance    a head, an objective that trains it, and a sampler that reads that kind of head
    guidance            labels, a model that has learned to do without them, an interval inside the grid
    classifier          trained on the model's own images and classes
    augmentation        a network that can be told of it
    coupling            a batch that is not cut into pieces

An option that its own entry refuses is refused there: the parts are made, so their messages come through.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sfumato.core.denoiser import Prediction
from sfumato.core.find import OptionError
from sfumato.core.level import Level, index_in
from sfumato.training.assemble import (
    asks,
    build_grid,
    build_objective,
    build_sampler,
    context_of,
    make,
    option,
    trains,
)
from sfumato.training.recipe import Recipe, RecipeError, Shape

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
    recipe = replace(recipe, sigma_data=recipe.sigma_data or 0.5)
    context = context_of(recipe)
    kind = trains(recipe)
    _check_network(recipe, kind)
    draw = make(recipe.draw, context)
    for made in (recipe.c_noise, recipe.target):
        make(made, context)
    build_objective(recipe, draw)
    discrete = [p for p in (recipe.c_noise, recipe.target, recipe.weighting, recipe.objective) if asks(p, "table")]
    if discrete:
        what = f"{discrete[0].room}={discrete[0].name} knows the levels of schedule={recipe.schedule.name} only"
        with _explained(f"{what}, and draw={recipe.draw} visits others; draw=uniform visits them"):
            index_in(context["table"], draw(_quantiles()))
    if kind == "denoiser":
        if recipe.variance != "none" and not asks(recipe.objective, "variance"):
            raise RecipeError(
                f"variance={recipe.variance} gives the network a second head, which objective={recipe.objective.name} "
                "does not train. Set objective=hybrid or objective=vlb, or variance=none."
            )
        check_sampling(recipe)


def _quantiles() -> Tensor:
    return (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES


def _check_network(recipe: Recipe, kind: str) -> None:
    images = asks(recipe.network, "out_channels")
    if images != (kind == "denoiser"):
        remedy = "network=unet, for example" if kind == "denoiser" else "network=adm-classifier"
        made = "images" if images else "no images"
        raise RecipeError(
            f"objective={recipe.objective.name} trains a {kind}, and network={recipe.network.name} returns {made}. "
            f"Use {remedy}."
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


def check_sampling(recipe: Recipe) -> None:
    """Refuse a sampler, grid or guidance that the trained network does not allow; part of `check`.

    Arguments:
        recipe: Resolved.

    Raises:
        RecipeError: Naming the rule, what was found, and what to set instead.
    """
    wanted = option(recipe.sample.sampler, "variance")
    if HEADS.get(wanted, recipe.variance) != recipe.variance:
        raise RecipeError(
            f"sample.sampler.variance={wanted} reads a learned variance (variance={HEADS[wanted]}), and this recipe "
            f"has variance={recipe.variance}. Set variance={HEADS[wanted]} with objective=hybrid, or "
            "sample.sampler.variance=small or large."
        )
    _check_guidance(recipe)
    _walk(recipe)


def _check_guidance(recipe: Recipe) -> None:
    sample, classes = recipe.sample, len(recipe.shape.classes) if recipe.shape and recipe.data.labels else 0
    if sample.guidance != 1 and not classes:
        raise RecipeError("Guidance needs a class-conditional model; this one has no labels. Use guidance=1.")
    if sample.guidance != 1 and option(recipe.objective, "label_dropout") == 0:
        raise RecipeError(
            f"sample.guidance={sample.guidance:g} mixes in the estimate without a label, which a model trained with "
            "objective.label_dropout=0 has never learned. Train with objective.label_dropout=0.1, or use guidance=1."
        )
    if sample.interval is not None:
        (low, high), nsr = sample.interval, build_grid(recipe).nsr[:-1]
        if sample.guidance == 1:
            raise RecipeError(
                f"sample.interval={low:g},{high:g} limits guidance, and sample.guidance=1 is none. Set "
                "sample.guidance, or sample.interval=none."
            )
        if not 0 <= low < high or not bool(((nsr >= low) & (nsr <= high)).any()):
            raise RecipeError(
                f"sample.interval={low:g},{high:g} must hold at least one level of the grid, which has sigma/alpha "
                f"from {float(nsr.min()):.4g} to {float(nsr.max()):.4g}. Set sample.interval=LOW,HIGH inside it."
            )
    if sample.classifier is not None:
        _check_classifier(recipe, sample.classifier)


def _check_classifier(recipe: Recipe, folder: str) -> None:
    file = Path(folder) / "recipe.json"
    if not file.exists():
        raise RecipeError(
            f"sample.classifier={folder} is not a run (no recipe.json). Train one with objective=classifier."
        )
    other = Recipe.from_json(json.loads(file.read_text())["recipe"])
    if trains(other) != "classifier":
        raise RecipeError(f"sample.classifier={folder} is a run of {other.name}, which trained no classifier.")
    mine, theirs = recipe.shape, other.shape
    # an unlabelled model takes any classes: it never hears of them
    if mine is None or theirs is None or replace(mine, classes=mine.classes or theirs.classes) != theirs:
        raise RecipeError(
            f"A classifier guides a model of its own images and classes: {folder} knows {_text(theirs)}, and this "
            f"model {_text(mine)}. Train the classifier on the model's data."
        )
    if asks(other.c_noise, "table"):
        with _explained(f"The classifier of {folder} does not know the levels of sample.grid={recipe.sample.grid}"):
            index_in(context_of(other)["table"], build_grid(recipe)[:-1])


def _text(shape: Shape | None) -> str:
    if shape is None:
        return "no shape"
    names = ", ".join(shape.classes[:5]) + (", ..." if len(shape.classes) > 5 else "")
    return f"{shape.channels}x{shape.height}x{shape.width}, {len(shape.classes)} classes ({names})"


def _walk(recipe: Recipe) -> None:
    """Let the sampler walk the grid on one pixel, with a stand-in that knows only the levels the network knows."""
    context = context_of(recipe)
    seen: list[Level] = []

    def stand_in(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        seen.append(level)
        return Prediction(0 * x, None if recipe.variance == "none" else 0 * x)

    with _explained(f"sample.sampler={recipe.sample.sampler} cannot walk sample.grid={recipe.sample.grid}"):
        grid, x = build_grid(recipe), torch.zeros(1, 1, 1, 1)
        for _ in build_sampler(recipe)(stand_in, x, grid, noise=lambda step: x):
            pass
        visited = Level(torch.cat([v.alpha.reshape(-1) for v in seen]), torch.cat([v.sigma.reshape(-1) for v in seen]))
        if asks(recipe.c_noise, "table"):
            index_in(context["table"], visited)
        if recipe.c_in == "one":
            _check_scale(visited, make(recipe.draw, context)(_quantiles()))


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


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Put what a recipe asked for before the reason that a part gives."""
    try:
        yield
    except (RecipeError, OptionError):
        raise
    except ValueError as error:
        raise RecipeError(f"{what}: {error}") from None
