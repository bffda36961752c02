"""The kinds of model, one row each: what is made around a network, what it costs, and the words for it.

    denoiser      images at a noise level; a sampler walks it from noise to images
    classifier    logits at a noise level; it guides denoisers and makes no images
    generator     images of latents in one pass, trained against a discriminator

An objective says what it trains by the constant TRAINS of its file, which names a row. A model asks for what it is made
of by parameter name, as parts do; what no row's model, no objective and no sampling asks for is idle (`runs.idle`).
The trainer of a kind stands above this package, in `training.trainers`, under the kind's name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.core.classifier import NoisyClassifier
from sfumato.core.denoiser import Preconditioned
from sfumato.core.level import Level
from sfumato.networks._count import Cost, cost
from sfumato.runs.assemble import asks, constant
from sfumato.runs.recipe import Part, Recipe, RecipeError

Size = tuple[int, int, int]


@dataclass(frozen=True)
class RecipeCost:
    """What a recipe costs.

    Attributes:
        network: One call in sampling; a generator's, without its discriminator.
        parameters: All that are trained.
        training: GFLOP of one image in training.
    """

    network: Cost
    parameters: int
    training: float


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        name: What objectives call it.
        returns: What its network returns, in words.
        network: A network of the kind, for remedies.
        asks: The parameter that only networks of the kind take; None for the kind without one.
        model: Makes the model around a network; what else it asks for is given by parameter name.
        cost: Counts what a recipe costs from its network on the meta device and the size (C, H, W) of an image.
        forward: Returns one pass of a model over so many images of a size, to be timed; None if that is not timed.
        walks: Whether a sampler walks it from noise to images.
        draws: Whether it makes images.
        paired: Whether two networks step in turn: neither cut, shared, compiled nor begun from other weights.
        levels: Whether its network is shown images at noise levels.
        probed: Returns the part of its network that is shown images.
        look: Shows a model images at a level, without their class, and returns what comes out.
        instead: What to do with a run of the kind where a walk is asked for; {} stands for the run.
    """

    name: str
    returns: str
    network: str
    asks: str | None
    model: Callable[..., nn.Module]
    cost: Callable[[nn.Module, Size], RecipeCost]
    forward: Callable[[nn.Module, Size, int], Callable[[], object]] | None
    walks: bool = False
    draws: bool = True
    paired: bool = False
    levels: bool = True
    probed: Callable[[nn.Module], nn.Module] = lambda network: network
    look: Callable[[nn.Module, Tensor, Level], object] = lambda model, x, level: model(x, level)
    instead: str = ""


def _one_network(network: nn.Module, size: Size) -> RecipeCost:
    """Training an image costs a forward pass f and a backward pass of two: F = 3 f."""
    found = cost(network, size)
    return RecipeCost(found, found.parameters, 3 * found.gflop)


def _two_networks(network: nn.Module, size: Size) -> RecipeCost:
    """Count a step of both: F = (3 + 3 + 2) d + 3 g.

    D passes forward and back on real and made images, then G and D for G's half, where D's weights are fixed (its
    backward pass costs one).
    """
    generator, discriminator = network.get_submodule("generator"), network.get_submodule("discriminator")
    made = cost(generator, (int(generator.latent),), level=False)  # type: ignore[arg-type]
    judged = cost(discriminator, size, level=False)
    return RecipeCost(made, made.parameters + judged.parameters, 8 * judged.gflop + 3 * made.gflop)


def _denoise(model: nn.Module, size: Size, batch: int) -> Callable[[], object]:
    level = model.snap(Level.of(0.6, 0.8))  # type: ignore[operator]
    x = torch.zeros(batch, *size)
    return lambda: model(x, level)


def _generate(model: nn.Module, size: Size, batch: int) -> Callable[[], object]:
    z = model.latents(range(batch))  # type: ignore[operator]
    return lambda: model(z, None)


def _discriminator(network: nn.Module) -> nn.Module:
    return network.get_submodule("discriminator")


def _itself(network: nn.Module) -> nn.Module:
    return network


DENOISER = Kind(
    *("denoiser", "images at a noise level", "unet", "out_channels"),
    model=Preconditioned,
    cost=_one_network,
    forward=_denoise,
    walks=True,
)
CLASSIFIER = Kind(
    *("classifier", "logits", "adm-classifier", None),
    model=NoisyClassifier,
    cost=_one_network,
    forward=None,
    draws=False,
    instead="It guides another run: sample that one with sample.classifier={}",
)
GENERATOR = Kind(
    *("generator", "images of latents", "dcgan", "latent"),
    model=_itself,
    cost=_two_networks,
    forward=_generate,
    paired=True,
    levels=False,
    probed=_discriminator,
    look=lambda model, x, level: _discriminator(model)(x),
    instead="It makes an image in one pass, so there are no steps to show: sfumato sample {} draws its sheet.",
)
KINDS = {kind.name: kind for kind in (DENOISER, CLASSIFIER, GENERATOR)}


def kind_of(recipe: Recipe) -> Kind:
    """Return the kind of model that a recipe's objective trains."""
    return KINDS[constant(recipe.objective, "TRAINS")]


def network_kind(network: Part) -> Kind:
    """Return the kind of model that can be made of a network, by what its entry takes."""
    return next((kind for kind in (GENERATOR, DENOISER) if asks(network, kind.asks or "")), CLASSIFIER)


def require(kind: Kind, recipe: Recipe, who: str, remedy: str) -> None:
    """Refuse a recipe that trains another kind of model.

    Arguments:
        kind: What is needed.
        recipe: Any.
        who: The run, for the message.
        remedy: A sentence.

    Raises:
        RecipeError: If it does.
    """
    found = kind_of(recipe)
    if found is not kind:
        raise RecipeError(f"{who} trained a {found.name}, not a {kind.name}. {remedy}")
