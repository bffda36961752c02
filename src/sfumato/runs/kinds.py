"""The kinds of model, one row each: what is made around a network, what it costs, and the words for it.

    denoiser      images at a noise level; a sampler walks it from noise to images
    classifier    logits at a noise level; it guides denoisers and makes no images
    generator     images of latents in one pass, trained against a discriminator
    autoencoder   latents of images, and images of latents; denoisers are trained on its latents
    joint         a denoiser of the latents of an autoencoder that is trained with it

An objective says what it trains by the constant TRAINS of its file, which names a row. A model asks for what it is made
of by parameter name, as parts do; what no row's model, no objective and no sampling asks for is idle (`runs.idle`).
The trainer of a kind stands above this package, in `training.trainers`, under the kind's name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.core.classifier import NoisyClassifier
from sfumato.core.denoiser import Preconditioned
from sfumato.core.level import Level
from sfumato.latent.autoencoder import Autoencoder
from sfumato.networks._count import Cost, cost
from sfumato.runs.part import asks, constant, option
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
        cost: Counts what a recipe costs from its network on the meta device and the size (C, H, W) of an image; options
            of the objective that it asks for are given by parameter name.
        forward: Returns one pass of a model over so many images of a size, to be timed; None if that is not timed.
        step: What a training step goes through, for a count of its memory: a module, what it is told beside its input,
            and the shape of one input.
        walks: Whether a sampler walks it from noise to images.
        draws: Whether it makes images.
        paired: Whether two networks step in turn: neither cut, shared, compiled nor begun from other weights.
        whole: Whether a batch is trained on by one process, which compiles nothing.
        on_latents: Whether it can be trained on the latents of an autoencoder's run (data.latent).
        walked: The shape of what a sampler walks, from the network's part and the shape of an image of training.
        coder: Returns the autoencoder that a network is or holds; None if there is none.
        levels: Whether its network is shown images at noise levels, and told them.
        probed: Returns the part of its network that is shown images.
        look: Shows a model images at a level, without their class, and returns what comes out.
        instead: What to do with a run of the kind where a walk is asked for; {} stands for the run.
    """

    name: str
    returns: str
    network: str
    asks: str | None
    model: Callable[..., nn.Module]
    cost: Callable[..., RecipeCost]
    forward: Callable[[nn.Module, Size, int], Callable[[], object]] | None
    step: Callable[[nn.Module, Size], tuple[nn.Module, tuple[Any, ...], tuple[int, ...]]]
    walks: bool = False
    draws: bool = True
    paired: bool = False
    whole: bool = False
    on_latents: bool = False
    walked: Callable[[Part, Size], Size] = lambda network, size: size
    coder: Callable[[nn.Module], nn.Module] | None = None
    levels: bool = True
    probed: Callable[[nn.Module], nn.Module] = lambda network: network
    look: Callable[[nn.Module, Tensor, Level], object] = lambda model, x, level: model(x, level)
    instead: str = ""

    @property
    def words(self) -> str:
        """Its name with an article."""
        return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"


def _one_network(network: nn.Module, size: Size) -> RecipeCost:
    """Training an image costs a forward pass f and a backward pass of two: F = 3 f."""
    found = cost(network, size)
    return RecipeCost(found, found.parameters, 3 * found.gflop)


def _two_networks(network: nn.Module, size: Size, every: int | None, r1: float | None) -> RecipeCost:
    """Count a step of both: F = (3 + 3) d + g + (2 d + 2 g) / every, and 3 d more for R1.

    D passes forward and back on real and made images, then G and D for G's half, where D's weights are fixed (its
    backward pass costs one). R1 passes back once for the gradient, and twice more through that.
    """
    generator, discriminator = network.get_submodule("generator"), network.get_submodule("discriminator")
    made = cost(generator, (int(generator.latent),), level=False)  # type: ignore[arg-type]
    judged = cost(discriminator, size, level=False)
    d, g = judged.gflop, made.gflop
    training = (6 + 3 * bool(r1)) * d + g + (2 * d + 2 * g) / (every or 1)
    return RecipeCost(made, made.parameters + judged.parameters, training)


def _through(network: nn.Module, size: Size) -> RecipeCost:
    """Count an autoencoder, which is told no noise level."""
    found = cost(network, size, level=False)
    return RecipeCost(found, found.parameters, 3 * found.gflop)


def _prior_and_coder(network: nn.Module, size: Size) -> RecipeCost:
    """Count a step of both: F = 3 c + (3 + 2) p, since the prior is asked twice and once its weights are fixed."""
    coder = network.get_submodule("coder")
    coded, prior = cost(coder, size, level=False), cost(network, _latent(coder, size))
    return RecipeCost(prior, prior.parameters, 3 * coded.gflop + 5 * prior.gflop)


def _latent(coder: nn.Module, size: Size) -> Size:
    return int(coder.latents), size[1] // int(coder.factor), size[2] // int(coder.factor)  # type: ignore[arg-type]


def _in_latents(network: Part, size: Size) -> Size:
    factor = option(network, "factor")
    return option(network, "latents"), size[1] // factor, size[2] // factor


class _Judged(nn.Module):
    """What a generator makes, seen by its discriminator: one half of a GAN's step."""

    def __init__(self, pair: nn.Module) -> None:
        super().__init__()
        self.generator, self.discriminator = pair.get_submodule("generator"), pair.get_submodule("discriminator")
        self.latent = int(self.generator.latent)  # type: ignore[arg-type]

    def forward(self, z: Tensor) -> Tensor:
        return self.discriminator(self.generator(z, None), None)


class _Coded(nn.Module):
    """An image through the autoencoder, its latent through the prior: a joint step without the prior's second call."""

    def __init__(self, joint: nn.Module) -> None:
        super().__init__()
        self.joint = joint

    def forward(self, x: Tensor) -> Tensor:
        coder = self.joint.get_submodule("coder")
        z = coder.encode(x)[:, : int(coder.latents)]  # type: ignore[operator, arg-type]
        passes = coder.decode(z), self.joint(z, torch.zeros((), device=x.device), None)  # type: ignore[operator]
        return torch.stack([out.flatten(1).sum(1) for out in passes])


def _denoise(model: nn.Module, size: Size, batch: int) -> Callable[[], object]:
    level = model.snap(Level.of(0.6, 0.8))  # type: ignore[operator]
    x = torch.zeros(batch, *size)
    return lambda: model(x, level)


def _generate(model: nn.Module, size: Size, batch: int) -> Callable[[], object]:
    z = model.latents(range(batch))  # type: ignore[operator]
    return lambda: model(z, None)


DENOISER = Kind(
    *("denoiser", "images at a noise level", "unet", "out_channels"),
    model=Preconditioned,
    cost=_one_network,
    forward=_denoise,
    step=lambda network, size: (network, (0.0, None), size),
    walks=True,
    on_latents=True,
)
CLASSIFIER = Kind(
    *("classifier", "logits", "adm-classifier", None),
    model=NoisyClassifier,
    cost=_one_network,
    forward=None,
    step=lambda network, size: (network, (0.0, None), size),
    draws=False,
    on_latents=True,
    instead="It guides another run: sample that one with sample.classifier={}",
)
GENERATOR = Kind(
    *("generator", "images of latents", "dcgan", "latent"),
    model=lambda network: network,
    cost=_two_networks,
    forward=_generate,
    step=lambda network, size: (judged := _Judged(network), (), (judged.latent,)),
    paired=True,
    whole=True,
    levels=False,
    probed=lambda network: network.get_submodule("discriminator"),
    look=lambda model, x, level: model.get_submodule("discriminator")(x),
    instead="It makes an image in one pass, so there are no steps to show: sfumato sample {} draws its sheet.",
)
AUTOENCODER = Kind(
    *("autoencoder", "latents of images and images of latents", "autoencoder", "factor"),
    model=Autoencoder,
    cost=_through,
    forward=None,
    step=lambda network, size: (network, (), size),
    draws=False,
    levels=False,
    look=lambda model, x, level: model(x),
    coder=lambda network: network,
    instead="It codes images and draws none: train a denoiser on its latents with data.latent={}",
)
JOINT = Kind(
    *("joint", "latents at a noise level, and codes images", "lsgm", "prior"),
    model=Preconditioned,
    cost=_prior_and_coder,
    forward=_denoise,
    step=lambda network, size: (_Coded(network), (), size),
    walks=True,
    whole=True,
    probed=lambda network: network.get_submodule("prior"),
    walked=_in_latents,
    coder=lambda network: network.get_submodule("coder"),
)
KINDS = {kind.name: kind for kind in (DENOISER, CLASSIFIER, GENERATOR, AUTOENCODER, JOINT)}


def kind_of(recipe: Recipe) -> Kind:
    """Return the kind of model that a recipe's objective trains."""
    return KINDS[constant(recipe.objective, "TRAINS")]


def network_kind(network: Part) -> Kind:
    """Return the kind of model that can be made of a network, by what its entry takes."""
    marked = (GENERATOR, JOINT, AUTOENCODER, DENOISER)  # a joint network has the options of the next two as well
    return next((kind for kind in marked if asks(network, kind.asks or "")), CLASSIFIER)


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
        raise RecipeError(f"{who} trained {found.words}, not {kind.words}. {remedy}")
