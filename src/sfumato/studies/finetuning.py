"""Study: few images, from scratch or from a model of other classes?

A parent is trained on half of the classes. Of the other half there are few images, and a model learns them from
nothing, from the parent, or from the parent with its way down frozen; each sees the same number of training images,
many times over. A score against held-out images falls both for a model that learns and, at first, for one that copies:
how near the images lie to the few that were trained on stands beside it (`metrics.memorization`).

References:
    Wang et al. Transferring GANs: Generating Images from Limited Data. 2018. https://arxiv.org/abs/1805.01677
    Moon et al. Fine-tuning Diffusion Models with Limited Data. 2022. https://openreview.net/forum?id=0J6afk9DqrR
    Gu et al. On Memorization in Diffusion Models. 2023. https://arxiv.org/abs/2310.02664
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.experiments.figures import sheets
from sfumato.experiments.judges import Copying
from sfumato.experiments.study import Ordering, Row, Study, at, variant
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.studies._bases import edm, only

# scale -> classes of the parent and of its children, numbers of images, images seen by a child, images judged, seeds
SIZES = {
    "tiny": (("0", "1", "2", "3", "4"), ("5", "6", "7", "8", "9"), (60, 200), 512, 80, (0,)),
    "cpu": (
        ("t-shirt", "trouser", "pullover", "dress", "coat"),
        ("sandal", "shirt", "sneaker", "bag", "ankle-boot"),
        (100, 1000),
        30_000,
        2000,
        (0, 1, 2),
    ),
}
WAYS: dict[str, tuple[str, ...]] = {"scratch": (), "tuned": (), "tuned, way down frozen": ("train.freeze=down",)}
SOURCE = "Moon et al. 2022"


def finetuning(scale: str) -> Study:
    """Learn new classes of few images from nothing and from a model of other classes, at equal images seen.

    Arguments:
        scale: "tiny" (digits) or "cpu" (Fashion-MNIST at 14x14).
    """
    known, new, counts, images, n, seeds = at(scale, SIZES)
    base = override(edm(scale), ["objective.label_dropout=0.1"])
    parent = only(base, known, True)
    children = {f"{way}, {count} images": _child(base, new, count, images, way) for count in counts for way in WAYS}
    rows = [Row("parent, its own classes", parent, run="parent", judge=Copying())]
    rows += [Row(name, recipe, judge=Copying()) for name, recipe in children.items()]
    few = counts[0]
    return Study(
        name="finetuning",
        scale=scale,
        question="Do few images of new classes go further from a trained model than from nothing?",
        varies="where the weights begin, how many images there are, and what is frozen",
        equal="network, images seen by a child (the parent's come on top), optimiser, sampler, grid, n",
        rows=tuple(rows),
        n=n,
        seeds=seeds,
        starts={name: "parent" for name in children if not name.startswith("scratch")},
        orderings=(
            *(Ordering.below(f"tuned, {count} images", f"scratch, {count} images", SOURCE) for count in counts),
            Ordering.below(f"tuned, way down frozen, {few} images", f"tuned, {few} images"),
        ),
        pictures=sheets,
    )


def _child(base: Recipe, classes: tuple[str, ...], count: int, images: int, way: str) -> Recipe:
    """Return the recipe of a child: its classes, its number of images, and what is frozen."""
    few = replace(only(base, classes, True), name=base.name)
    return variant(few, f"{way}-{count}", (f"data.first={count}", f"train.images={images}", *WAYS[way]))
