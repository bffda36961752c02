"""Study: tell a residual block of time and class by scale and shift after its norm (AdaGN), or by addition before it?

    AdaGN       GN(h) (1 + s) + b
    addition    GN(h + b)

References:
    Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. 2021, Table 3. https://arxiv.org/abs/2105.05233
    (One of the sources prints "y_s + GroupNorm(h) + y_b": a misprint, two shifts and no scale.)
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.experiments.figures import sheets
from sfumato.experiments.study import Ordering, Row, Study, at
from sfumato.recipes.adm import adm_imagenet128
from sfumato.runs.recipe import Recipe, part
from sfumato.studies._bases import small_iddpm

SIZES = {"tiny": (100, (0,)), "cpu": (1000, (0, 1, 2)), "paper": (50_000, (0,))}
OPTIONS: dict[str, dict[str, object]] = {
    "tiny": {"width": 16, "mult": (1, 2), "blocks": 1, "attention": (4,), "groups": 8, "head_width": 16},
    "cpu": {"width": 32, "mult": (1, 1.5), "blocks": 1, "attention": (7,), "groups": 16, "head_width": 16},
    "paper": {"width": 128, "mult": (1, 1, 2, 3, 4), "blocks": 2, "attention": (32, 16, 8), "head_width": 64},
}
PAPER = {"AdaGN": 13.06, "addition": 15.08}
STEPS = {"tiny": 10, "cpu": 25}  # of sampling
SOURCE = "Dhariwal, Nichol 2021, Table 3"


def _recipe(scale: str, adaptive: bool) -> Recipe:
    base = adm_imagenet128() if scale == "paper" else small_iddpm(scale, STEPS[scale])
    network = part("network", "adm", **{"head_width": 32, **OPTIONS[scale], "adaptive": adaptive})
    name = f"adm-{'adagn' if adaptive else 'addition'}"
    return replace(base, name=name, network=network, c_noise=part("conditioning", "index"))


def adagn(scale: str) -> Study:
    """Compare adaptive group normalisation with addition.

    Arguments:
        scale: "tiny" (digits), "cpu" (Fashion-MNIST at 14x14) or "paper" (ImageNet 128, scored against training).
    """
    n, seeds = at(scale, SIZES)
    return Study(
        name="adagn",
        scale=scale,
        question="Should time and class scale the normalised features, or be added to them?",
        varies="how a residual block is told of time and class",
        equal="data, chain, loss, images seen, optimiser, all other layers, sampler, grid, n; sizes are in the table",
        rows=tuple(Row(name, _recipe(scale, name == "AdaGN"), paper=paper) for name, paper in PAPER.items()),
        n=n,
        seeds=seeds,
        split="train" if scale == "paper" else "test",
        orderings=(Ordering.below("AdaGN", "addition", SOURCE),),
        paper=f"{SOURCE}: FID on ImageNet 128",
        pictures=sheets,
    )
