"""Study: ADM's ablation of the network, one factor at a time, and all that helped together.

    deeper      more blocks and fewer channels, at about equal size
    heads       more heads of attention
    attention   at more resolutions
    blocks      BigGAN's residual blocks that change the resolution
    rescale     residual sums times 1/sqrt(2): found not to help, and left out of the combination

References:
    Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. 2021, Table 1. https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.core.find import check_options
from sfumato.experiments.figures import sheets
from sfumato.experiments.study import Ordering, Row, Study, at
from sfumato.recipes.adm import adm_imagenet128
from sfumato.runs.recipe import Recipe, part
from sfumato.studies._bases import small_iddpm

SIZES = {"tiny": (100, (0,)), "cpu": (1000, (0, 1, 2)), "paper": (50_000, (0,))}
# scale -> options of the network of each row
FACTORS: dict[str, dict[str, dict[str, object]]] = {
    "tiny": {
        "base": {"width": 16, "mult": (1, 2), "blocks": 1, "attention": (4,), "heads": 1, "groups": 8},
        "deeper": {"mult": (1, 1.5), "blocks": 2},
        "heads": {"heads": 2},
        "attention": {"attention": (8, 4)},
        "blocks": {"resample": "block"},
        "rescale": {"rescale": True},
    },
    "cpu": {
        "base": {"width": 32, "mult": (1, 1.5), "blocks": 1, "attention": (7,), "heads": 1, "groups": 16},
        "deeper": {"mult": (1, 1), "blocks": 2},
        "heads": {"heads": 4},
        "attention": {"attention": (14, 7)},
        "blocks": {"resample": "block"},
        "rescale": {"rescale": True},
    },
    "paper": {
        "base": {"width": 160, "mult": (1, 1, 2, 3, 4), "blocks": 2, "attention": (16,), "heads": 1},
        "deeper": {"width": 128, "blocks": 4},
        "heads": {"heads": 4},
        "attention": {"attention": (32, 16, 8)},
        "blocks": {"resample": "block"},
        "rescale": {"rescale": True},
    },
}
COMBINED = ("heads", "attention", "blocks")
PAPER = {
    "base": 13.21,
    "deeper": 12.73,
    "heads": 12.39,
    "attention": 12.55,
    "blocks": 12.0,
    "rescale": 13.46,
    "combined": 10.21,
}
STEPS = {"tiny": 10, "cpu": 25}  # of sampling
SOURCE = "Dhariwal, Nichol 2021, Table 1"


def _recipe(scale: str, name: str, options: dict[str, object]) -> Recipe:
    base = adm_imagenet128() if scale == "paper" else small_iddpm(scale, STEPS[scale])
    shared = {"head_width": 0, "resample": "conv", "dropout": 0.0}
    network = part("network", "adm", **{**shared, **options})
    check_options("networks.adm", network.entry(), network.options)
    return replace(base, name=f"adm-ablation-{name}", network=network, c_noise=part("conditioning", "index"))


def adm_ablation(scale: str) -> Study:
    """Change ADM's network by one factor at a time, and by all that helped.

    Arguments:
        scale: "tiny" (digits), "cpu" (Fashion-MNIST at 14x14) or "paper" (ImageNet 128, scored against training).
    """
    n, seeds = at(scale, SIZES)
    factors = FACTORS[scale]
    chosen = {name: {**factors["base"], **options} for name, options in factors.items()}
    chosen["combined"] = dict(factors["base"])
    for name in COMBINED:
        chosen["combined"] |= factors[name]
    return Study(
        name="adm-ablation",
        scale=scale,
        question="Which changes to the network of iDDPM help, and do they add up?",
        varies="one factor of the network at a time, then heads, attention and blocks together",
        equal="data, cosine chain, hybrid loss, images seen, optimiser, sampler, grid, n; sizes are in the table",
        rows=tuple(Row(name, _recipe(scale, name, options), paper=PAPER[name]) for name, options in chosen.items()),
        n=n,
        seeds=seeds,
        split="train" if scale == "paper" else "test",
        orderings=(
            *(Ordering.below(name, "base", SOURCE) for name in ("deeper", "heads", "attention", "blocks")),
            Ordering("rescaling scores above base", ("base", "rescale"), source=SOURCE),
            Ordering.below("combined", "base", SOURCE),
        ),
        paper=f"{SOURCE}: FID on ImageNet 128 after 1.2 million steps",
        timed=True,
        pictures=sheets,
    )
