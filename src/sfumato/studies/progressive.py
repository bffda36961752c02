"""Study: how early is an image decided? The quality of the estimate of x0 after each part of the walk.

At every step the denoiser estimates the finished image. Early estimates are blurred means, whose details come late;
DDPM's figure 10 has the distance of these estimates against the step.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, section 4.3, figures 6 and 10.
    https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from sfumato.experiments.figures import curve, shown, words_of_images
from sfumato.experiments.judges import Estimates
from sfumato.experiments.study import Ordering, Outcome, Picture, Row, Study, at
from sfumato.report.strip import strip
from sfumato.studies._bases import ANCESTRAL, ddpm

# scale -> steps of the walk, after which of them to look, images judged
SIZES = {"tiny": (10, (1, 5, 10), 100), "cpu": (50, (1, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50), 1000)}


def progressive(scale: str) -> Study:
    """Score the estimates of x0 along one walk.

    Arguments:
        scale: "tiny" (digits) or "cpu" (Fashion-MNIST at 14x14).
    """
    steps, looks, n = at(scale, SIZES)
    recipe, walk = ddpm(scale), (*ANCESTRAL, "sample.grid=respaced", f"sample.grid.steps={steps}")
    rows = tuple(
        Row(f"after {k} of {steps}", recipe, walk, run="ddpm", line="estimate of x0", x=k, judge=Estimates(k))
        for k in looks
    )
    names = [row.name for row in rows]
    return Study(
        name="progressive",
        scale=scale,
        question="How early in the walk is an image decided?",
        varies="after which step the estimate of x0 is taken for the image",
        equal="one trained run, sampler, grid, starting noise of every image, n",
        by="steps done",
        rows=rows,
        n=n,
        orderings=(Ordering("later estimates score lower", tuple(names[::-1]), source="Ho et al. 2020, figure 10"),),
        pictures=_pictures,
    )


def _pictures(study: Study, outcomes: Sequence[Outcome]) -> Mapping[str, Picture]:
    drawn = dict(curve("steps done", "Quality of the estimate of x0")(study, outcomes))
    run = next((run for _, run in shown(outcomes)), None)
    if run is not None:
        source = run.diffusion()
        labels = torch.arange(6) % source.classes if source.classes else None
        caption = words_of_images(study, outcomes)
        drawn["strip"] = strip(source, range(6), labels, title="x_t and the estimate of x0", caption=caption)
    return drawn
