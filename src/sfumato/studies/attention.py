"""Study: what does attention buy, and is it attention or the weights that come with it?

Three networks: with attention; without it ("dropped", as that report did, which leaves fewer
weights); and without it but wider, to as many weights as the first ("matched").

Reference: a student report on EDM, "Effect of self-attention": FID on Fashion-MNIST 10.26 with, 14.74 without
attention, with 5.03 and 4.15 million weights.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from sfumato.experiments.figures import sheets
from sfumato.experiments.study import Ordering, Row, Study, at, variant
from sfumato.recipes.course_edm import course_edm_fashion_mnist
from sfumato.runs.override import override
from sfumato.runs.part import option as option_of
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe, Shape
from sfumato.studies._bases import small_edm

SIZES = {"tiny": (200, (0,)), "cpu": (2000, (0, 1, 2)), "paper": (50_000, (0,))}  # images judged, training seeds
# scale -> option of the network and step by which weights are made up for, after the width
FINE = {"tiny": ("embedding", 2), "cpu": ("embedding", 4), "paper": ("width", 1)}
PAPER = {"attention": 10.26, "dropped": 14.74}
SOURCE = "a student report on EDM"


def parameters(recipe: Recipe) -> int:
    """Return the number of weights of a recipe's network; of ten classes if its data has not been seen."""
    known = replace(recipe, shape=recipe.shape or Shape(1, 16, 16, tuple("0123456789")), sigma_data=0.5)
    return sum(weights.numel() for weights in plan(known).build_network("meta").parameters())


def matched(plain: Recipe, wanted: int, fine: tuple[str, int]) -> Recipe:
    """Return a recipe made larger, to the number of weights nearest to `wanted`: wider in steps of 4, then finely.

    Arguments:
        plain: The narrower recipe.
        wanted: Number of weights to come near to.
        fine: Option of the network that makes up for the rest, and its step.
    """
    wide = _grown(plain, wanted, "width", 4, above=False)
    return _grown(wide, wanted, *fine, above=True)


def _grown(recipe: Recipe, wanted: int, option: str, step: int, above: bool) -> Recipe:
    """Return a recipe with an option raised while that comes nearer to `wanted` weights, past it only if asked."""
    value, best = int(option_of(recipe.network, option)), parameters(recipe)
    while True:
        value += step
        larger = override(recipe, [f"network.{option}={value}"])
        try:
            count = parameters(larger)
        except ValueError:  # a width that groups or heads do not divide
            continue
        if abs(count - wanted) >= abs(best - wanted) or (count > wanted and not above):
            return recipe
        recipe, best = larger, count


@cache
def _recipes(scale: str) -> tuple[tuple[str, Recipe], ...]:
    """Return the three recipes by name; matching them takes seconds."""
    full = course_edm_fashion_mnist() if scale == "paper" else small_edm(scale)
    plain = override(full, ["network.attention=()"])
    return ("attention", full), ("dropped", plain), ("matched", matched(plain, parameters(full), FINE[scale]))


def attention(scale: str) -> Study:
    """Compare a network with attention, without it, and without it at equal size.

    Arguments:
        scale: "tiny" (digits), "cpu" (Fashion-MNIST at 14x14) or "paper" (the report's).
    """
    n, seeds = at(scale, SIZES)
    recipes = dict(_recipes(scale))
    return Study(
        name="attention",
        scale=scale,
        question="Does attention help by attending, or by its weights?",
        varies="attention, and the width that makes up for its weights",
        equal="data, images seen, optimiser, sampler, grid, n; the number of weights between attention and matched",
        rows=tuple(Row(name, variant(recipe, name), paper=PAPER.get(name)) for name, recipe in recipes.items()),
        n=n,
        seeds=seeds,
        orderings=(
            Ordering("attention scores below none", ("attention", "dropped"), source=SOURCE),
            Ordering("attention scores below none at equal size", ("attention", "matched")),
        ),
        paper=f"{SOURCE}, FID on Fashion-MNIST, test set",
        timed=True,
        pictures=sheets,
    )
