"""Study: should a model be trained on pairs of small and large images, or restored from one that never saw a small one?

SR3 is trained for one measurement and tells the network the small image; a model of images alone is held to it while it
is sampled, by a method. Both have seen as many training images, make the same held-out pictures from the same noise on
the same grid, and end on A x0 = y. A method with gradients asks as often and takes longer: its gradients stand beside.

References:
    Saharia et al. Image Super-Resolution via Iterative Refinement. 2021 (SR3), Table 1.
    https://arxiv.org/abs/2104.07636
    Song et al. Pseudoinverse-Guided Diffusion Models for Inverse Problems. 2023. https://openreview.net/forum?id=9_gsMA8MRKQ
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from sfumato.core.images import to_uint8
from sfumato.evaluation.restored import columns
from sfumato.experiments.figures import shown, words_of_images
from sfumato.experiments.judges import Restoration
from sfumato.experiments.study import Asked, Ordering, Outcome, Picture, Row, Study, at
from sfumato.recipes.digits import edm_digits
from sfumato.recipes.edm_digits_attributes import sr3_digits, sr3_fashion_mnist_cpu
from sfumato.recipes.fashion_mnist import edm_fashion_mnist_cpu
from sfumato.report.sheet import sheet
from sfumato.runs.override import override
from sfumato.studies._bases import tiny

# scale -> factor, pictures, samples of each, steps
SIZES = {"tiny": (2, 40, 3, 4), "cpu": (4, 200, 9, 18)}
BUDGET = ("train.sheet_every=100000000",)  # training images are those of the recipes
METHODS = ("ddnm", "pigdm", "moment")
SHOWN = 4  # pictures of a sheet


def super_resolution(scale: str) -> Study:
    """Enlarge held-out pictures by SR3, and by an unconditional model with every method, at equal calls.

    Arguments:
        scale: "tiny" (digits, 4x4 to 8x8) or "cpu" (Fashion-MNIST, 7x7 to 28x28).
    """
    factor, n, samples, steps = at(scale, SIZES)
    digits = scale == "tiny"
    sr3 = tiny(sr3_digits()) if digits else override(sr3_fashion_mnist_cpu(), BUDGET)
    plain = tiny(edm_digits()) if digits else override(edm_fashion_mnist_cpu(), BUDGET)
    settings = ("sample.sampler=heun", f"sample.grid.steps={steps}")

    def row(name: str, run: str, method: str) -> Row:
        judge = Restoration("superres", method, samples, (("factor", factor),))
        return Row(name, sr3 if run == "sr3" else plain, settings, run=run, judge=judge)

    return Study(
        name="super-resolution",
        scale=scale,
        question="Should a model be trained to enlarge, or held to the small image while it is sampled?",
        varies="what is told while training, and the method",
        equal="training images, network calls, small images, starting noise of every sample",
        rows=(row("SR3", "sr3", "told"), *(row(f"EDM: {method}", "edm", method) for method in METHODS)),
        metrics=("fd",),
        n=n,
        orderings=tuple(Ordering.below("SR3", f"EDM: {method}") for method in METHODS),
        pictures=_pictures,
    )


def _pictures(study: Study, outcomes: Sequence[Outcome]) -> Mapping[str, Picture]:
    """Draw the first pictures by every row: truth, measurement, samples, mean and band."""
    blocks: list[torch.Tensor] = []
    names: list[str] = []
    labels: list[str] = []
    for outcome, run in shown(outcomes):
        judge = outcome.row.judge
        assert isinstance(judge, Restoration)
        truth, y, task, found = judge.restored(Asked(replace(study, n=SHOWN), run.recipe, run, None, None, True))
        labels, images = columns(found, to_uint8(task.picture(y)), truth, most=3)
        blocks.append(images)
        names += [outcome.row.name] + [""] * (len(truth) - 1)
    if not blocks:
        return {}
    caption = words_of_images(study, outcomes)
    return {
        "enlarged": sheet(
            torch.cat(blocks), len(labels), row_labels=names, column_labels=labels, title=study.name, caption=caption
        )
    }
