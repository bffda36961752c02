"""Study: does a longer chain make better images?

T = 500, 1000 and 1500, the betas of the linear chain scaled by 1000 / T so that every chain ends in the same noise; and
T = 500 with the betas of T = 1000, the mistake that leaves a tenth of the signal at the end. Each is sampled with the
same number of steps, so the cost is equal, and at "paper" scale with all of its own.

Reference: a student report on cats of CIFAR-10: longer chains trained slower and "didn't appear to generate perceptibly
higher quality images" (sheets, no scores). DDPM uses T = 1000: https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.experiments.figures import sheets
from sfumato.experiments.study import Ordering, Row, Study, at
from sfumato.recipes.course_ddpm import course_ddpm_cats
from sfumato.runs.override import override
from sfumato.studies._bases import ANCESTRAL, cats, small_ddpm

SIZES = {  # scale -> images judged, training seeds, steps of sampling
    "tiny": (200, (0,), 10),
    "cpu": (1000, (0, 1, 2), 50),
    "lossy": (1000, (0, 1), 50),
    "paper": (1000, (0,), 500),
}
CHAINS = {
    "T = 500": ("schedule.steps=500",),
    "T = 1000": ("schedule.steps=1000",),
    "T = 1500": ("schedule.steps=1500",),
    # beta_min and beta_max are those of T = 1000 and are scaled by 1000 / T = 2: halved here, so that nothing is scaled
    "T = 500, not rescaled": ("schedule.steps=500", "schedule.beta_min=5e-5", "schedule.beta_max=0.01"),
}


def timesteps(scale: str) -> Study:
    """Compare chains of 500, 1000 and 1500 levels, rescaled, and one that is not.

    Arguments:
        scale: "tiny" (digits), "cpu" (Fashion-MNIST at 14x14), "lossy" or "paper" (cats of CIFAR-10).
    """
    n, seeds, steps = at(scale, SIZES)
    base = course_ddpm_cats() if scale == "paper" else cats(small_ddpm(scale), scale)
    base = override(base, ["sample.grid=respaced", f"sample.grid.steps={steps}"])
    rows = tuple(
        Row(name, replace(override(base, fields), name=f"{base.name}-chain-{i}"), () if scale == "paper" else ANCESTRAL)
        for i, (name, fields) in enumerate(CHAINS.items())
    )
    return Study(
        name="timesteps",
        scale=scale,
        question="Does a longer chain make better images?",
        varies="T, and in one row whether the betas are rescaled with it",
        equal=f"data, network, images seen, optimiser, {steps} sampling steps, starting noise, n",
        rows=rows,
        n=n,
        seeds=seeds,
        orderings=(
            Ordering.below("T = 1000", "T = 500"),
            Ordering.below("T = 1500", "T = 1000"),
            Ordering("rescaled scores below not rescaled", ("T = 500", "T = 500, not rescaled")),
        ),
        pictures=sheets,
    )
