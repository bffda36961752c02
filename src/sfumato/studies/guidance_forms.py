"""Study: guidance that does not burn. Which form of guidance keeps variety and contrast at the same weight?

One class-conditional run is sampled at rising weight w by plain guidance, guidance within an interval, projected
guidance (APG), guidance with its contrast rescaled, and CFG++, whose weight lies in [0, 1]. Saturation and contrast of
real images stand beside those of the samples, since neither more nor less of them is better.

References:
    Ho, Salimans. Classifier-Free Diffusion Guidance. 2022. https://arxiv.org/abs/2207.12598
    Kynkaanniemi et al. Applying Guidance in a Limited Interval Improves Sample and Distribution Quality. 2024.
    https://arxiv.org/abs/2404.07724
    Sadat et al. Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion Models. 2024, Table 1.
    https://arxiv.org/abs/2410.02416
    Lin et al. Common Diffusion Noise Schedules and Sample Steps Are Flawed. 2024, section 3.4.
    https://arxiv.org/abs/2305.08891
    Chung et al. CFG++: Manifold-Constrained Classifier Free Guidance for Diffusion Models. 2024.
    https://arxiv.org/abs/2406.08070
"""

from __future__ import annotations

from sfumato.experiments.figures import curve
from sfumato.experiments.study import Ordering, Row, Study, at
from sfumato.studies._bases import edm

# scale -> weights, weights of CFG++, images judged, seeds
SIZES = {
    "tiny": ((1.0, 4.0), (0.6,), 80, (0,)),
    "cpu": ((1.0, 1.5, 2.0, 3.0, 5.0, 8.0), (0.2, 0.4, 0.6, 0.8, 1.0), 2000, (0, 1, 2)),
    "cpu28": ((1.0, 1.5, 3.0, 8.0), (0.2, 0.6, 1.0), 2000, (0,)),
}
FORMS = {
    "cfg": ("sample.guidance=cfg",),
    "interval": ("sample.guidance=cfg", "sample.interval=0.25,4"),
    "apg": ("sample.guidance=apg",),
    "apg, momentum": ("sample.guidance=apg", "sample.guidance.momentum=-0.5"),
    "rescale": ("sample.guidance=[cfg,rescale]",),
}
STEPS = ("sample.sampler=ddim", "sample.sampler.cfgpp=true", "sample.guidance=cfg")
FADING = "Sadat et al. 2024, Table 1"


def guidance_forms(scale: str) -> Study:
    """Sweep the weight of five forms of guidance and of CFG++: distance, recall, saturation, contrast.

    Arguments:
        scale: "tiny" (digits), "cpu" (Fashion-MNIST at 14x14) or "cpu28" (at 28x28).
    """
    weights, shares, n, seeds = at(scale, SIZES)
    recipe, (none, *more) = edm(scale), weights
    rows = [
        Row("no guidance", recipe, run="edm", line="cfg", x=none),
        *(
            Row(f"{form}, w = {w:g}", recipe, (*how, f"sample.guidance.w={w}"), run="edm", line=form, x=w)
            for form, how in FORMS.items()
            for w in more
        ),
        Row("ddim, no guidance", recipe, STEPS[:1], run="edm", line="ddim", x=none),
        *(
            Row(f"CFG++, w = {w:g}", recipe, (*STEPS, f"sample.guidance.w={w}"), run="edm", line="CFG++", x=w)
            for w in shares
        ),
    ]
    strong = f"w = {weights[-1]:g}"
    return Study(
        name="guidance-forms",
        scale=scale,
        question="Which form of guidance keeps variety and contrast at the same weight?",
        varies="form of guidance, and its weight w",
        equal="one trained run, grid, starting noise of every image, n; the sampler but for CFG++, which needs DDIM",
        by="w",
        rows=tuple(rows),
        metrics=("fd", "recall", "saturation", "contrast"),
        n=n,
        seeds=seeds,
        orderings=tuple(
            Ordering(f"{form} at {strong} {claim}", pair if low else pair[::-1], metric, FADING)
            for form in ("apg", "rescale")
            for pair in [(f"{form}, {strong}", f"cfg, {strong}")]
            for metric, claim, low in (
                ("fd", "scores below plain guidance", True),
                ("recall", "keeps more recall than plain guidance", False),
                ("contrast", "has less contrast than plain guidance", True),
            )
        ),
        pictures=curve("w", "Forms of guidance"),
    )
