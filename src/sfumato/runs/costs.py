"""What a recipe costs: the network's size, and the operations of one image in training and in making.

denoiser, classifier    training an image costs a forward pass and a backward pass of two, F = 3 f
generator               a step passes D forward and back on real and made images, then G and D for G's half, where
                        D's weights are fixed (its backward pass costs one):  F = (3 + 3 + 2) d + 3 g
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sfumato.networks._count import Cost, cost
from sfumato.runs.assemble import build_network, trains
from sfumato.runs.recipe import Recipe, RecipeError


@dataclass(frozen=True)
class RecipeCost:
    """What a recipe costs.

    Attributes:
        network: Of one call in sampling; a generator's, without its discriminator.
        parameters: All that are trained.
        training: GFLOP of one image in training.
    """

    network: Cost
    parameters: int
    training: float


def recipe_cost(recipe: Recipe) -> RecipeCost:
    """Count what a recipe costs, without computing anything.

    Arguments:
        recipe: Resolved, or with a stated shape and sigma_data.

    Raises:
        RecipeError: If its image shape is not known.
    """
    if recipe.shape is None:
        raise RecipeError(f"{recipe.name} has no image shape yet; resolve it with its data.")
    network = build_network(recipe, "meta")
    shape = (recipe.shape.channels, recipe.shape.height, recipe.shape.width)
    if trains(recipe) != "generator":
        found = cost(network, shape)
        return RecipeCost(found, found.parameters, 3 * found.gflop)
    generator, discriminator = network.get_submodule("generator"), network.get_submodule("discriminator")
    made = cost(generator, (_latent(generator),), level=False)
    judged = cost(discriminator, shape, level=False)
    return RecipeCost(made, made.parameters + judged.parameters, 8 * judged.gflop + 3 * made.gflop)


def _latent(generator: nn.Module) -> int:
    return int(generator.latent)  # type: ignore[arg-type]
