"""Study: does learning the variance help when steps are few?

Two runs on iDDPM's cosine chain differ in their objective only: L_simple, and L_hybrid, which also learns the variance.
The second is sampled with its learned variance and, by the same network, with the two fixed ones; the first with the
fixed ones, as iDDPM's figure has it. x0 is clipped, as there.

References:
    Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. 2021, figure 8.
    https://arxiv.org/abs/2102.09672
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.experiments.figures import curve
from sfumato.experiments.study import Ordering, Row, Study, at
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.studies._bases import iddpm

SIZES = {"tiny": ((5, 10), 200), "cpu": ((5, 10, 25), 1000)}  # scale -> steps, images judged
SOURCE = "Nichol, Dhariwal 2021, figure 8"
FEW = 25  # steps up to which the paper's gain is plain


def without_head(recipe: Recipe) -> Recipe:
    """Return a hybrid recipe with L_simple and fixed small variance in place of the learned one."""
    simple = override(recipe, ("sample.sampler.variance=small", "objective=denoising"))
    return replace(simple, variance="none", name=recipe.name.replace("iddpm", "iddpm-simple"))


def learned_variance(scale: str) -> Study:
    """Compare learned with fixed variances at few steps.

    Arguments:
        scale: "tiny" (digits) or "cpu" (Fashion-MNIST at 14x14).
    """
    counts, n = at(scale, SIZES)
    hybrid = iddpm(scale)
    runs = {"hybrid": hybrid, "simple": without_head(hybrid)}
    kinds = [("hybrid", v) for v in ("learned", "small", "large")] + [("simple", v) for v in ("small", "large")]
    rows = [
        Row(f"{run} {variance}, {steps} steps", runs[run],
            ("sample.sampler=ancestral", f"sample.sampler.variance={variance}", "sample.sampler.clip=true",
             "sample.grid=respaced", f"sample.grid.steps={steps}"),
            run=run, line=f"{run}, {variance}", x=steps)
        for run, variance in kinds for steps in counts
    ]  # fmt: skip
    claims = [("hybrid", "small"), ("hybrid", "large"), ("simple", "small"), ("simple", "large")]
    return Study(
        name="learned-variance",
        scale=scale,
        question="Does a learned variance make better images in few steps?",
        varies="variance of the step (learned, small, large), objective of the run, number of steps",
        equal="data, cosine chain of 1000, network but for the head, images seen, grid, starting noise, clipping, n",
        by="steps",
        rows=tuple(rows),
        n=n,
        orderings=tuple(
            Ordering(
                f"at N = {steps}, learned scores below {variance} of {run}",
                (f"hybrid learned, {steps} steps", f"{run} {variance}, {steps} steps"),
                source=SOURCE,
            )
            for steps in counts
            if steps <= FEW
            for run, variance in claims
        ),
        pictures=curve("steps N", "Learned against fixed variance"),
    )
