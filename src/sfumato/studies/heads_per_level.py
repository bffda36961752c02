"""Study: how many heads should attention have, and is one number right for every level?

Heads share the channels of a level: more heads look at more places at once, each through fewer channels. The number of
weights does not change, nor that of products. A report asks for a number of heads for each level, since maps differ in
what there is to see: a fine map has many positions and few channels, a coarse one the reverse. Both levels attend here,
with one head or four.

Reference: "Diffusion Models Beat GANs on Image Synthesis", Dhariwal and Nichol, 2021,
    https://arxiv.org/abs/2105.05233, Table 2: FID falls with the number of heads, the same at all levels.
"""

from __future__ import annotations

from sfumato.experiments.figures import sheets
from sfumato.experiments.study import Ordering, Row, Study, at, variant
from sfumato.runs.part import option
from sfumato.runs.recipe import Recipe
from sfumato.studies._bases import small_edm

SIZES = {"tiny": (200, (0,)), "cpu": (2000, (0, 1, 2))}  # images judged, training seeds
HEADS = ((1, 1), (4, 1), (1, 4), (4, 4))  # of the fine and the coarse level
SOURCE = "Dhariwal, Nichol 2021, Table 2"


def name_of(fine: int, coarse: int) -> str:
    """Return the name of a row: heads of the fine level, heads of the coarse one."""
    return f"{fine} fine, {coarse} coarse"


def headed(base: Recipe, heads: tuple[int, ...]) -> Recipe:
    """Return a recipe with attention at every level, of so many heads each, finest first."""
    width, mult = option(base.network, "width"), option(base.network, "mult")
    each = [width * m // count for m, count in zip(mult, heads, strict=True)]
    fields = (f"network.attention={list(range(len(heads)))}", f"network.head_width={each}")
    return variant(base, "heads-" + "-".join(map(str, heads)), fields)


def heads_per_level(scale: str) -> Study:
    """Compare numbers of attention heads, chosen level by level, at equal weights.

    Arguments:
        scale: "tiny" (digits) or "cpu" (Fashion-MNIST at 14x14).
    """
    n, seeds = at(scale, SIZES)
    base = small_edm(scale)
    few, fine, coarse, many = (name_of(*heads) for heads in HEADS)
    return Study(
        name="heads-per-level",
        scale=scale,
        question="How many heads should attention have at each level?",
        varies="heads of attention at the fine and at the coarse level",
        equal="data, weights, images seen, optimiser, sampler, grid, n",
        rows=tuple(Row(name_of(*heads), headed(base, heads)) for heads in HEADS),
        n=n,
        seeds=seeds,
        orderings=(
            Ordering("four heads at both levels score below one", (many, few), source=SOURCE),
            Ordering("four heads at the fine level score below one", (fine, few)),
            Ordering("four heads at the coarse level score below one", (coarse, few)),
            Ordering("four heads help the coarse level more than the fine one", (coarse, fine)),
        ),
        timed=True,
        pictures=sheets,
    )
