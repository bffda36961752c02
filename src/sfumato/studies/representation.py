"""Study: do diffusion models represent?

A linear classifier reads the class of an image in what a trained network holds inside, for every family of the study
`families`: the same data, network, images seen and evaluation. Block and level are chosen on training images. Beside
each stand the distance of the images it makes, and what pixels and as many principal components give: a family that
draws well need not represent well.

References:
    Xiang, Yang, Huang, Wang. Denoising Diffusion Autoencoders are Unified Self-Supervised Learners. 2023.
        https://arxiv.org/abs/2303.09769
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.experiments.judges import Probed
from sfumato.experiments.study import Study, at
from sfumato.studies.families import families

SIZES = {"tiny": (100, 100), "cpu": (5_000, 2_000)}  # scale -> training images of the classifier, held-out images
TINY = ("ddpm", "edm")


def representation(scale: str) -> Study:
    """Probe every family of the study families, best image distance first.

    Arguments:
        scale: "tiny" (two families on digits) or "cpu" (Fashion-MNIST at 14x14).
    """
    n, m = at(scale, SIZES)
    base = families(scale)
    base = base.only(TINY) if scale == "tiny" else base
    trained = {row.trained: row for row in reversed(base.rows)}  # a run that is sampled twice is probed once
    judge = Probed(n, m) if scale == "cpu" else Probed(n, m, at=(0.1,), blocks=("middle",))
    return replace(
        base,
        name="representation",
        question="Which family's network holds most of an image's class, and is it more than its pixels show?",
        equal=f"{base.equal}; the linear classifier, its {n:,} training images and {m:,} held-out images",
        rows=tuple(replace(row, judge=judge) for row in base.rows if trained[row.trained] is row),
        n=min(base.n, 200) if scale == "tiny" else base.n,
        metrics=("fd",),
    )
