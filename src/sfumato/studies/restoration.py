"""Study: which way of sampling p(x0 | y) restores best, and which knows how sure it is?

One trained run restores held-out pictures that it has never seen, by every method on the same grid and seeds. A set is
judged by FD against other real images (a method that returns means makes blurred sets), a picture by its original
(PSNR, SSIM), and the samples by how often the original lies in their band, which should be as often as chance says.

The methods differ in one thing, the variance of x0 given x that they assume: none (DDNM replaces what is seen), the
same for every pixel (PiGDM), or the Jacobian of the denoiser (moment matching). `dps` has the width of its likelihood
from the same assumption here, not the step size tuned by hand that its paper uses.

References:
    Wang et al. Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model. 2023, Table 1.
    https://arxiv.org/abs/2212.00490
    Song et al. Pseudoinverse-Guided Diffusion Models for Inverse Problems. 2023, Table 1.
    https://openreview.net/forum?id=9_gsMA8MRKQ
    Rozet et al. Learning Diffusion Priors from Observations by Expectation Maximization. 2024, section 4.2 (moment
    matching). https://arxiv.org/abs/2405.13712
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from sfumato.core.images import to_uint8
from sfumato.evaluation.restored import columns
from sfumato.experiments.figures import shown, words_of_images
from sfumato.experiments.judges import Restoration
from sfumato.experiments.study import Asked, Ordering, Outcome, Picture, Row, Study, at
from sfumato.report.sheet import sheet
from sfumato.studies._bases import edm

SIZES = {"tiny": (40, 3, 6), "cpu": (200, 9, 12)}  # scale -> pictures, samples of each, steps
TASKS: dict[str, tuple[str, tuple[tuple[str, Any], ...]]] = {
    "half hidden": ("inpaint", (("mask", "half"),)),
    "70% hidden": ("inpaint", (("mask", "random 70%"),)),
    "half the side": ("superres", (("factor", 2),)),
    "noisy": ("denoise", (("noise", 0.5),)),
}
METHODS = ("ddnm", "pigdm", "dps", "moment")
SHOWN = 4  # pictures of a sheet
SONG, ROZET = "Song et al. 2023, Table 1", "Rozet et al. 2024, section 4.2"


def restoration(scale: str) -> Study:
    """Restore held-out pictures by every method: distance of the set, nearness to the originals, coverage of the band.

    Arguments:
        scale: "tiny" (digits) or "cpu" (Fashion-MNIST at 14x14).
    """
    n, samples, steps = at(scale, SIZES)
    recipe = edm(scale)
    settings = ("sample.sampler=dpmpp", f"sample.grid.steps={steps}")
    rows = [
        Row(f"{task}: {method}", recipe, settings, run="edm", judge=Restoration(name, method, samples, options))
        for task, (name, options) in TASKS.items()
        for method in METHODS
    ]
    claims = [
        Ordering(f"{task}: {low} scores below {high}", (f"{task}: {low}", f"{task}: {high}"), source=source)
        for task in ("half hidden", "70% hidden", "half the side")
        for low, high, source in (("pigdm", "ddnm", SONG), ("moment", "pigdm", ROZET))
    ]
    return Study(
        name="restoration",
        scale=scale,
        question="Which way of sampling the posterior restores best, and which knows how sure it is?",
        varies="task and method; where A A^T = q I, as in these tasks, dps is pigdm",
        equal="one trained run, sampler and grid, held-out pictures, starting noise of every sample",
        by="",
        rows=tuple(rows),
        metrics=("fd",),
        n=n,
        orderings=tuple(claims),
        ranked=False,
        pictures=_pictures,
    )


def _pictures(study: Study, outcomes: Sequence[Outcome]) -> Mapping[str, Picture]:
    """Draw the first pictures of every task and method: truth, measurement, samples, mean and band."""
    found: dict[str, Picture] = {}
    for task in TASKS:
        blocks: list[torch.Tensor] = []
        names: list[str] = []
        labels: list[str] = []
        for outcome, run in shown(outcomes):
            judge = outcome.row.judge
            if not outcome.row.name.startswith(f"{task}:"):
                continue
            assert isinstance(judge, Restoration)
            asked = Asked(replace(study, n=SHOWN), run.recipe, run, None, None, True)
            truth, y, made, restored = judge.restored(asked)
            labels, images = columns(restored, to_uint8(made.picture(y)), truth, most=3)
            blocks.append(images)
            names += [judge.method] + [""] * (len(truth) - 1)
        if blocks:
            found[task.replace(" ", "-").replace("%", "")] = sheet(
                torch.cat(blocks),
                len(labels),
                row_labels=names,
                column_labels=labels,
                title=task,
                caption=words_of_images(study, outcomes),
            )
    return found
