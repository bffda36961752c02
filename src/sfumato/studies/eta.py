"""Study: DDIM's table, the noise of a step against the number of steps, on one discrete run.

    eta = 0         deterministic (DDIM)
    0 < eta < 1     a share of the posterior's standard deviation is renewed
    eta = 1         ancestral sampling with the small variance
    sigma-hat       eta = 1 with the large variance's noise: DDPM's own

References:
    Song, Meng, Ermon. Denoising Diffusion Implicit Models. 2021, Table 1. https://arxiv.org/abs/2010.02502
"""

from __future__ import annotations

from sfumato.experiments.figures import curve
from sfumato.experiments.study import Ordering, Row, Study, at
from sfumato.recipes.ddpm import ddpm_cifar10
from sfumato.studies._bases import ddpm

KINDS = {
    "eta 0": ("sample.sampler.eta=0",),
    "eta 0.2": ("sample.sampler.eta=0.2",),
    "eta 0.5": ("sample.sampler.eta=0.5",),
    "eta 1": ("sample.sampler.eta=1",),
    "sigma-hat": ("sample.sampler.eta=1", "sample.sampler.sigma_hat=true"),
}
PUBLISHED = {  # CIFAR-10, FID of 50,000 images against the training set, by number of steps
    "eta 0": {10: 13.36, 20: 6.84, 50: 4.67, 100: 4.16, 1000: 4.04},
    "eta 0.2": {10: 14.04, 20: 7.11, 50: 4.77, 100: 4.25, 1000: 4.09},
    "eta 0.5": {10: 16.66, 20: 8.35, 50: 5.25, 100: 4.46, 1000: 4.29},
    "eta 1": {10: 41.07, 20: 18.36, 50: 8.01, 100: 5.78, 1000: 4.73},
    "sigma-hat": {10: 367.43, 20: 133.37, 50: 32.72, 100: 9.99, 1000: 3.17},
}
SOURCE = "Song et al. 2021, Table 1"
SIZES = {"tiny": ((5, 10), 200), "cpu": ((10, 20, 50), 1000), "paper": ((10, 20, 50, 100, 1000), 50_000)}


def eta(scale: str) -> Study:
    """Sample one discrete run by DDIM at several eta and numbers of steps: DDIM's Table 1.

    Arguments:
        scale: "tiny" (digits), "cpu" (Fashion-MNIST at 14x14) or "paper" (CIFAR-10, scored against the training set).
    """
    counts, n = at(scale, SIZES)
    recipe = ddpm_cifar10() if scale == "paper" else ddpm(scale)
    rows = [
        Row(
            f"{kind}, {steps} steps",
            recipe,
            ("sample.sampler=ddim", *options, "sample.grid=respaced", f"sample.grid.steps={steps}"),
            run="ddpm",
            line=kind,
            x=steps,
            paper=PUBLISHED[kind].get(steps),
        )
        for kind, options in KINDS.items()
        for steps in counts
    ]
    claims = {"FD rises with eta": list(KINDS)[:4], "sigma-hat scores above eta 1": ("eta 1", "sigma-hat")}
    rising = [
        Ordering(f"{claim} at N = {steps}", tuple(f"{kind}, {steps} steps" for kind in kinds), source=SOURCE)
        for claim, kinds in claims.items()
        for steps in counts
        if steps < 1000
    ]
    return Study(
        name="eta",
        scale=scale,
        question="How much noise should a step renew, and does it depend on the number of steps?",
        varies="eta (and sigma-hat), and the number of evenly spaced steps",
        equal="one trained run of 1000 levels, starting noise of every image, n; x0 is not clipped",
        by="steps",
        rows=tuple(rows),
        n=n,
        split="train" if scale == "paper" else "test",
        orderings=tuple(rising),
        paper=f"{SOURCE}: FID on CIFAR-10, 50,000 images",
        pictures=curve("steps N", "DDIM: eta against steps"),
    )
