"""Study: linear against cosine, in networks of several sizes; and cosine as it is often written, clipped at 0.02.

The cosine chain needs betas near 1 at its end. Clipped at 0.02, as in the code that the report started from, it
is another chain: its betas are the linear chain's largest over the last third, and 6% of the signal's amplitude is left
at the end where cosine leaves none. The comparison with the linear chain is confounded; all three are rows here.

Reference: a student report on cats of CIFAR-10, FID of 1,000 cats (floor 49.84): three stages linear 118.5, cosine
(clipped) 115.9; two stages 100.1 and 97.3. iDDPM is the paper of the cosine chain: https://arxiv.org/abs/2102.09672
"""

from __future__ import annotations

from sfumato.experiments.figures import sheets
from sfumato.experiments.study import Ordering, Row, Study, at, variant
from sfumato.recipes.course_ddpm import course_ddpm_cats, course_ddpm_cats_2xud
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.studies._bases import ANCESTRAL, cats, small_ddpm

SIZES = {"tiny": (200, (0,)), "cpu": (1000, (0, 1, 2)), "lossy": (1000, (0,)), "paper": (1000, (0,))}
CHAINS = {
    "linear": ("schedule=linear", "schedule.steps=1000"),
    "cosine": ("schedule=cosine", "schedule.steps=1000"),
    "cosine clipped at 0.02": ("schedule=cosine", "schedule.steps=1000", "schedule.clip=0.02"),
}
PAPER = {
    "large, linear": 118.5,
    "large, cosine clipped at 0.02": 115.9,
    "two stages, linear": 100.1,
    "two stages, cosine clipped at 0.02": 97.3,
}
SOURCE = "a student report on cats of CIFAR-10"


def networks(scale: str) -> dict[str, Recipe]:
    """Return the networks of the study, by size."""
    if scale == "paper":
        return {"large": course_ddpm_cats(), "two stages": course_ddpm_cats_2xud()}
    base = cats(small_ddpm(scale), scale)
    half = max(16, int(base.network.options["width"]) // 2)
    if scale == "tiny":  # as narrow as it can be already: one size of another depth
        return {"small": base}
    return {"large": base, "small": override(base, [f"network.width={half}", f"network.head_width={half}"])}


def schedule_sizes(scale: str) -> Study:
    """Compare the linear, the cosine and the clipped cosine chain, in networks of two sizes.

    Arguments:
        scale: "tiny" (digits), "cpu" (Fashion-MNIST at 14x14), "lossy" or "paper" (cats of CIFAR-10).
    """
    n, seeds = at(scale, SIZES)
    rows = [
        Row(
            f"{size}, {chain}",
            variant(recipe, f"{size}, {chain}", fields),
            () if scale == "paper" else ANCESTRAL,
            paper=PAPER.get(f"{size}, {chain}"),
        )
        for size, recipe in networks(scale).items()
        for chain, fields in CHAINS.items()
    ]
    claims = [
        Ordering(f"{size}: {chain} scores below linear", (f"{size}, {chain}", f"{size}, linear"), source=source)
        for chain, source in (("cosine", "iDDPM 2021"), ("cosine clipped at 0.02", SOURCE))
        for size in networks(scale)
    ]
    return Study(
        name="schedule-sizes",
        scale=scale,
        question="Is the cosine chain better than the linear one, and at every size of network?",
        varies="the chain of 1000 levels, and the width of the network",
        equal="data, images seen, optimiser, target, sampler, number of steps, starting noise, n",
        rows=tuple(rows),
        n=n,
        seeds=seeds,
        orderings=tuple(claims),
        paper=f"{SOURCE}, FID of 1,000 cats of CIFAR-10",
        pictures=sheets,
    )
