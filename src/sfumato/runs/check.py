"""Check a recipe: combinations that cannot work are refused when it is built, each by a rule and with a remedy.

    numbers             none is NaN, and counts count something (`runs.check_numbers`)
    what is trained     an image network for a denoiser, logits for a classifier, at least two classes
    levels              what the draw visits and the sampler walks must be levels the network knows, at its scale
    learned variance    a head, an objective that trains it, and a sampler that reads that kind of head
    guidance            labels, a model that has learned to do without them, an interval inside the grid
    guides              weak models and classifiers: trained on the model's own images and classes, at its levels
    augmentation        a network that can be told of it
    latents             a kind of model that can be trained on them, and images that the autoencoder can halve
    weights by name     patterns that mean some, and something left to train (`networks._named`)
    gradients of a GAN  of single images, so without BatchNorm
    coupling            a batch that is not cut into pieces
    conditions          a network that can be told more than a class, and an objective that drops it

An option that its own entry refuses is refused there: the parts are made, so their messages come through.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sfumato.core.find import nearest
from sfumato.core.level import Level, index_in
from sfumato.data.told.attributes import SIDED
from sfumato.data.told.beside import split_kind
from sfumato.networks._count import cost
from sfumato.networks._named import factors_of_rates, frozen_weights
from sfumato.runs.averages import names_of, spellings
from sfumato.runs.check_guidance import check_guidance
from sfumato.runs.check_numbers import check_numbers
from sfumato.runs.guided import own_average
from sfumato.runs.kinds import network_kind
from sfumato.runs.part import asks, constant, explained, option
from sfumato.runs.plan import Plan, divided
from sfumato.runs.recipe import Recipe, RecipeError

HEADS = {"learned": "range", "diagonal": "diagonal"}  # a sampler's variance -> the head it reads
DISCRETE = ("target", "c_noise", "weighting", "objective")  # parts that may be tied to the levels of a table
QUANTILES = 16  # of the draw, at which its levels are checked


def check(plan: Plan) -> None:
    """Refuse a recipe whose parts cannot work together, before any work is done.

    Nothing is made here but by the plan. The levels that training visits, and those that the sampler asks for as it
    walks its grid once on one pixel, are compared with those the network knows.

    Arguments:
        plan: With its shape; sigma_data may still be unknown.

    Raises:
        RecipeError: Naming the rule, what was found, and what to set instead.
        OptionError, ValueError: From a part that refuses its own options.
    """
    recipe, kind = plan.recipe, plan.kind
    check_numbers(recipe)
    _check_network(plan)
    if recipe.data.told_more:
        _check_told(recipe)
    plan.assemble()
    _check_named_weights(plan)
    _check_budget(recipe)
    tied = [name for name in DISCRETE if name in plan.reads and asks(plan.parts[name], "table")]
    if tied and "draw" in plan.reads and plan.table is not None:
        what = f"{tied[0]}={plan.parts[tied[0]].name} knows the levels of schedule={recipe.schedule.name} only"
        with explained(f"{what}, and draw={recipe.draw} visits others; draw=uniform visits them"):
            index_in(plan.table, plan.draw(_quantiles()))
    if kind.walks:
        if recipe.variance != "none" and not asks(recipe.objective, "variance"):
            raise RecipeError(
                f"variance={recipe.variance} gives the network a second head, which objective={recipe.objective.name} "
                "does not train. Set objective=hybrid or objective=vlb, or variance=none."
            )
        if recipe.sample.autoguidance is not None:
            _check_own_average(recipe)
        check_sampling(plan)


def _check_own_average(recipe: Recipe) -> None:
    """Refuse a weak model that is an average of the run itself which is not kept while training."""
    weak = own_average(recipe.sample)
    known = ["raw", *names_of(recipe.ema)]
    if weak is not None and not {*known} & {*spellings(weak, recipe.ema)}:
        raise RecipeError(f"sample.autoguidance=@{weak}: {nearest('average', weak, known)}")


def _check_named_weights(plan: Plan) -> None:
    train = plan.recipe.train
    for field in ("freeze", "rate_factors"):
        if getattr(train, field) and plan.kind.paired:
            raise RecipeError(
                f"train.{field} is for a network trained alone, and objective={plan.recipe.objective.name} trains two "
                f"that step in turn. Set train.{field}=()."
            )
    with explained():
        frozen_weights(plan.network, train.freeze)
        factors_of_rates(plan.network, train.rate_factors)


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


def _mixes(network: nn.Module) -> bool:
    """Return whether a network's output for an image depends on the others of its batch."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def _check_network(plan: Plan) -> None:
    recipe, kind, found = plan.recipe, plan.kind, network_kind(plan.recipe.network)
    if found is not kind:
        raise RecipeError(
            f"objective={recipe.objective.name} trains {kind.words}, which returns {kind.returns}, and network="
            f"{recipe.network.name} returns {found.returns}. Use network={kind.network}, for example."
        )
    if kind.paired and recipe.train.micro is not None:
        raise RecipeError(
            f"BatchNorm looks at the whole batch, and train.micro={recipe.train.micro} cuts it. Set train.micro=none, "
            "or a smaller train.batch."
        )
    if kind.paired and option(recipe.objective, "r1") and _mixes(plan.network.get_submodule("discriminator")):
        raise RecipeError(
            f"objective.r1={option(recipe.objective, 'r1'):g} takes the gradient of each image's own logit, and "
            "BatchNorm in the discriminator mixes images. Set network.norm=spectral or network.norm=plain."
        )
    if recipe.data.latent is not None:
        _check_latent(plan)
    if kind.coder and kind.walks and plan.known is not None:
        raise RecipeError(
            f"objective={recipe.objective.name} weighs its prior at any noise level, and c_noise={recipe.c_noise.name} "
            "knows those of a discrete chain only. Set c_noise=quarter-log-nsr."
        )
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


def _check_told(recipe: Recipe) -> None:
    """Refuse attributes, or an image beside, that this network, objective or data cannot be told."""
    data = recipe.data
    fields = {"attributes": ",".join(data.attributes), "condition": data.condition.removeprefix("none")}
    what = " and ".join(f"data.{name}={value}" for name, value in fields.items() if value)
    with explained("data.condition"):
        image = split_kind(data.condition)[0] != "none"
    if data.latent is not None:
        raise RecipeError(
            f"{what} is told beside pixels, and data.latent={data.latent} gives latents. Set data.latent=none."
        )
    if len(set(data.attributes)) < len(data.attributes):
        raise RecipeError(f"data.attributes names each attribute once; got {','.join(data.attributes)}.")
    for part, parameter, others in (
        (recipe.network, "vector", "unet, ddpm, adm, songunet, dit, edm2 or jit"),
        (recipe.objective, "vector_dropout", "denoising, hybrid or uncertainty"),
    ):
        if not asks(part, parameter):
            raise RecipeError(f"{what} cannot be told with {part.axis}={part.name}. Set {part.axis}={others}.")
    if option(recipe.objective, "coupling") == "ot":
        raise RecipeError(
            f"objective.coupling=ot exchanges noises within a class, and {what} tells the model more: its noise would "
            "not be that of sampling. Set objective.coupling=independent."
        )
    if data.flip and (sided := [name for name in data.attributes if name in SIDED]):
        raise RecipeError(f"data.flip=true mirrors images, whose {sided[0]} was measured before. Set data.flip=false.")
    if image and data.augment:
        raise RecipeError(_as_it_is(recipe, f"data.augment={data.augment:g}"))
    if image and recipe.sample.size:
        raise RecipeError(_as_it_is(recipe, f"sample.size={','.join(map(str, recipe.sample.size))}"))


def _as_it_is(recipe: Recipe, field: str) -> str:
    return f"data.condition={recipe.data.condition} is an image of its own, which {field} leaves as it is."


def _check_latent(plan: Plan) -> None:
    """Refuse what cannot be trained on the latents of an autoencoder."""
    recipe = plan.recipe
    what = f"data.latent={recipe.data.latent} gives latents in place of images"
    if not plan.kind.on_latents:
        raise RecipeError(
            f"{what}, and objective={recipe.objective.name} trains a kind of model ({plan.kind.name}) that needs "
            "images. Set data.latent=none."
        )
    if recipe.data.augment:
        raise RecipeError(
            f"{what}, and data.augment={recipe.data.augment:g} changes images after they are encoded. Set "
            "data.augment=0, or train the autoencoder itself on changed images."
        )


def check_sampling(plan: Plan) -> None:
    """Refuse a sampler, grid or guidance that the trained network does not allow; part of `check`.

    Arguments:
        plan: With its shape.

    Raises:
        RecipeError: Naming the rule, what was found, and what to set instead.
    """
    recipe = plan.recipe
    check_numbers(recipe, ("sample", "evaluate"))
    wanted = option(recipe.sample.sampler, "variance")
    if HEADS.get(wanted, recipe.variance) != recipe.variance:
        raise RecipeError(
            f"sample.sampler.variance={wanted} reads a learned variance (variance={HEADS[wanted]}), and this recipe "
            f"has variance={recipe.variance}. Set variance={HEADS[wanted]} with objective=hybrid, or "
            "sample.sampler.variance=small or large."
        )
    sampled_shape(plan)
    _check_jumps(plan)
    _check_student(plan)
    _check_walk(plan)
    check_guidance(plan)


def _check_jumps(plan: Plan) -> None:
    """Refuse what cannot learn or use whole steps, where the objective trains them (MeanFlow)."""
    recipe = plan.recipe
    if not constant(recipe.objective, "JUMPS"):
        return
    what = f"objective={recipe.objective.name} trains whole steps from one level to another"
    if plan.known is not None:
        raise RecipeError(
            f"{what} at any levels, and c_noise={recipe.c_noise.name} knows those of a discrete chain only. Set "
            "c_noise=flow-time."
        )
    if not plan.two_levels:
        raise RecipeError(f"{what}, and this network is not told where a step ends. Set network.two_levels=true.")
    if not constant(recipe.sample.sampler, "JUMPS"):
        raise RecipeError(
            f"{what}, and sample.sampler={recipe.sample.sampler.name} does not tell the network where its step ends. "
            "Set sample.sampler=ddim."
        )


def _check_student(plan: Plan) -> None:
    """Refuse more steps of a student than it is distilled to."""
    recipe = plan.recipe
    if not asks(recipe.objective, "teacher"):
        return
    steps, last = len(plan.grid) - 1, option(recipe.objective, "steps") // 2 ** option(recipe.objective, "halvings")
    if steps > last:
        raise RecipeError(
            f"objective={recipe.objective.name} makes a student of {last} steps, and this grid has {steps}: it was not "
            f"trained for them. Set sample.grid.steps={last}, or fewer objective.halvings in training."
        )


def sampled_shape(plan: Plan) -> tuple[int, int, int]:
    """Return the shape (C, H, W) of what is walked to an image, refusing a size that the network cannot take.

    Arguments:
        plan: With its shape.

    Raises:
        RecipeError: Naming the nearest sizes.
    """
    size = plan.recipe.sample.size
    if not size:
        return plan.walked
    if plan.recipe.data.condition != "none":
        raise RecipeError(_as_it_is(plan.recipe, f"sample.size={','.join(map(str, size))}"))
    if len(size) > 2 or min(size) < 1:
        raise RecipeError(f"sample.size is one number, or height and width, in pixels; got {size}.")
    sampled = (plan.walked[0], *divided((size[0], size[-1]), plan.factor, "The autoencoder", "sample.size"))
    with explained(f"sample.size={','.join(map(str, size))}"):
        cost(plan.network, sampled)  # called without values: the network says what it cannot take
    return sampled


def _check_walk(plan: Plan) -> None:
    """Refuse a walk that fails, or asks for levels which the network does not know."""
    sample, visited = plan.recipe.sample, plan.visited
    with explained(f"sample.sampler={sample.sampler} cannot walk sample.grid={sample.grid}"):
        if plan.known is not None:
            index_in(plan.known, visited)
        if plan.recipe.c_in == "one":
            _check_scale(visited, plan.trained_levels(_quantiles()))


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
