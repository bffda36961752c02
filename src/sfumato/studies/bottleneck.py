"""Study: how small should the coarsest map be?

A report found two stages better than three, and supposed that the narrower bottleneck of three loses what a picture
needs. Here the number of levels varies, and with it the side of the coarsest map; the width makes up for the weights.

Reference: a student report on cats of CIFAR-10, FID of 1,000 cats (floor 49.84): three stages 118.5, two stages 100.1,
which differ in their weights, too (23.3 and 16.1 million).
"""

from __future__ import annotations

from sfumato.experiments.figures import sheets
from sfumato.experiments.study import Ordering, Row, Study, at, variant
from sfumato.recipes.course_ddpm import course_ddpm_cats, course_ddpm_cats_2xud
from sfumato.runs.recipe import Recipe
from sfumato.studies._bases import ANCESTRAL, cats, small_ddpm

# images judged, training seeds, side of the images, fields of the base
SIZES: dict[str, tuple[int, tuple[int, ...], int, tuple[str, ...]]] = {
    "tiny": (200, (0,), 8, ()),
    "cpu": (2000, (0, 1, 2), 16, ("data.pad=16", "evaluate.extractor=random")),
    "lossy": (1000, (0, 1), 16, ()),
    "paper": (1000, (0,), 32, ()),
}
WIDTHS = {1: 32, 2: 24, 3: 20, 4: 16}  # levels -> width, of as many weights
NAMES = {1: "one level", 2: "two levels", 3: "three levels", 4: "four levels"}
PAPER = {"three levels": 118.5, "two levels": 100.1}
SOURCE = "a student report on cats of CIFAR-10"


def recipes(scale: str, side: int, fields: tuple[str, ...]) -> dict[int, Recipe]:
    """Return the recipes by their number of levels."""
    if scale == "paper":
        return {3: course_ddpm_cats(), 2: course_ddpm_cats_2xud()}
    base = cats(small_ddpm(scale), scale)
    flat = ("network.patch=1", "network.blocks=1", "network.attention=()", "network.embedding=32", *fields)
    found = {}
    for levels, width in WIDTHS.items():
        if side >> (levels - 1) >= 2:
            sized = (f"network.width={width}", f"network.head_width={width}", f"network.mult={[1] * levels}")
            found[levels] = variant(base, NAMES[levels], (*flat, *sized))
    return found


def bottleneck(scale: str) -> Study:
    """Compare networks of one to four levels, of about as many weights.

    Arguments:
        scale: "tiny" (digits), "cpu" (Fashion-MNIST at 14x14, padded to 16), "lossy" or "paper" (cats of CIFAR-10).
    """
    n, seeds, side, fields = at(scale, SIZES)
    rows = [
        Row(
            NAMES[levels],
            recipe,
            () if scale == "paper" else ANCESTRAL,
            x=float(side >> (levels - 1)),
            paper=PAPER.get(NAMES[levels]) if scale == "paper" else None,
        )
        for levels, recipe in recipes(scale, side, fields).items()
    ]
    return Study(
        name="bottleneck",
        scale=scale,
        question="How small should the coarsest map be?",
        varies="the number of levels, and the width that keeps the number of weights",
        equal="data, images seen, optimiser, sampler, grid, n; the number of weights within 15% (not at paper scale)",
        by="side of the coarsest map, pixels",
        rows=tuple(rows),
        n=n,
        seeds=seeds,
        orderings=(Ordering("two levels score below three", ("two levels", "three levels"), source=SOURCE),),
        paper=f"{SOURCE}, FID of 1,000 cats of CIFAR-10" if scale == "paper" else "",
        timed=True,
        pictures=sheets,
    )
