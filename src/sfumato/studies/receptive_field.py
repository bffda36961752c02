"""Study: does attention help because a network's receptive field is too small, or whatever its size?

A report explains that attention mattered little by the receptive field of its convolutions: where an output pixel sees
the whole image anyway, attention has nothing to add. Here the field is small or large at equal capacity (one block of
wide layers, or three of narrow ones, on one level), capacity is small or large, and attention is there or not. In
images of 14 pixels, two corners see each other through a field of 27: 17 is too little, 33 is enough. In the 8 pixels
of the digits both are.

References:
    A student report on EDM, "Effect of self-attention": with 10.26, without attention 14.74 (FID on Fashion-MNIST).
    "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", Luo et al., 2016,
        https://arxiv.org/abs/1701.04128
"""

from __future__ import annotations

from sfumato.experiments.figures import sheets
from sfumato.experiments.study import Ordering, Row, Study, at, variant
from sfumato.runs.recipe import Recipe
from sfumato.studies._bases import small_edm

SIZES = {"tiny": (200, (0,)), "cpu": (2000, (0, 1, 2))}  # images judged, training seeds
# (capacity, side of the field) -> width and blocks, of as many weights within a capacity but for attention
NETWORKS = {("small", 17): (32, 1), ("small", 33): (20, 3), ("large", 17): (64, 1), ("large", 33): (40, 3)}
SOURCE = "a student report on EDM"


def network_of(base: Recipe, capacity: str, field: int, attends: bool) -> Recipe:
    """Return a recipe with a network of one level."""
    width, blocks = NETWORKS[capacity, field]
    return variant(
        base,
        f"{capacity}-{field}-{'attention' if attends else 'none'}",
        (
            *("network.patch=1", "network.mult=[1]", f"network.width={width}", f"network.head_width={width}"),
            *(f"network.blocks={blocks}", "network.embedding=32", f"network.attention={'[0]' if attends else '()'}"),
        ),
    )


def receptive_field(scale: str) -> Study:
    """Compare networks with and without attention, of two receptive fields and two capacities.

    Arguments:
        scale: "tiny" (digits) or "cpu" (Fashion-MNIST at 14x14).
    """
    n, seeds = at(scale, SIZES)
    base, words = small_edm(scale), {True: "attention", False: "none"}
    rows, orderings = [], []
    for capacity, field in NETWORKS:
        names = {attends: f"{capacity}, field {field}, {word}" for attends, word in words.items()}
        for attends, name in names.items():
            recipe = network_of(base, capacity, field, attends)
            rows.append(Row(name, recipe, line=f"{capacity}, {words[attends]}", x=float(field)))
        claim = f"{capacity}: with a field of {field}, attention scores below none"
        orderings.append(Ordering(claim, (names[True], names[False]), source=SOURCE))
    for capacity in ("small", "large"):
        pair = tuple(f"{capacity}, field {field}, none" for field in (33, 17))
        orderings.append(Ordering(f"{capacity}: without attention, the larger field scores lower", pair, source=SOURCE))
    return Study(
        name="receptive-field",
        scale=scale,
        question="Does attention help because the receptive field is too small?",
        varies="capacity, the field at equal capacity, attention",
        equal="data, images seen, optimiser, sampler, grid, n; the weights of one capacity within 15%",
        by="side of the receptive field, pixels",
        rows=tuple(rows),
        n=n,
        seeds=seeds,
        orderings=tuple(orderings),
        timed=True,
        pictures=sheets,
    )
