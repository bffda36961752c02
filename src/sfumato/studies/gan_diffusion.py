"""Study: DCGAN against diffusion, at equal images and at equal minutes, without labels, with them, and class by class.

Both are judged by the same images' number, extractor and floor, and what they cost is beside it: minutes of training,
and images sampled per second, where a GAN passes through its network once.

References: a student report on cats of CIFAR-10, FID of 1,000 images: cats, GAN 109.1 and diffusion 97.3 to 118.5;
asked of cats and frogs, frogs 181.7 and 70.5, cats 231.7 and 102.9. Dhariwal and Nichol, Diffusion Models Beat GANs on
Image Synthesis, 2021, https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.experiments.figures import sheets
from sfumato.experiments.judges import OneClass
from sfumato.experiments.study import Ordering, Row, Study, at, variant
from sfumato.recipes.course_ddpm import course_ddpm_cats_cosine, course_ddpm_cats_frogs
from sfumato.recipes.gans import course_dcgan_cats, course_dcgan_cats_frogs
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.studies._bases import small_edm, small_gan

# scale -> images judged, training seeds, minutes (0 for no rows at equal minutes), two classes to look at
SIZES = {
    "tiny": (80, (0,), 0.05, ("0", "1")),
    "cpu": (1000, (0, 1, 2), 3.0, ("pullover", "trouser")),
    "lossy": (1000, (0, 1), 3.0, ("cat", "frog")),
    "paper": (1000, (0,), 0.0, ("cat", "frog")),
}
PAPER = {
    "GAN, unlabelled": 109.1,
    "diffusion, unlabelled": 115.9,
    "GAN, first class": 231.7,
    "GAN, second class": 181.7,
    "diffusion, first class": 102.9,
    "diffusion, second class": 70.5,
}
SOURCE = "a student report on cats of CIFAR-10"


def pairs(scale: str) -> dict[str, tuple[Recipe, Recipe]]:
    """Return the unlabelled and the labelled recipe of each side."""
    if scale == "paper":
        return {
            "GAN": (course_dcgan_cats(), course_dcgan_cats_frogs()),
            "diffusion": (course_ddpm_cats_cosine(), course_ddpm_cats_frogs()),
        }
    labelled = {"GAN": small_gan(scale), "diffusion": small_edm(scale)}
    if scale == "tiny":  # enough digits of a class for an interval
        labelled = {name: override(recipe, ["data.test=0.5"]) for name, recipe in labelled.items()}

    hidden = ["data.labels=false"]
    return {name: (variant(recipe, "unlabelled", hidden), recipe) for name, recipe in labelled.items()}


def _rows(side: str, plain: Recipe, labelled: Recipe, looked_at: tuple[str, str], after: str = "") -> tuple[Row, ...]:
    """Return what one side is judged by: a run without labels, one with them, and two classes of the latter."""
    run = f"{side} labelled{after}"
    return (
        Row(f"{side}, unlabelled{after}", plain),
        Row(f"{side}, labelled{after}", labelled, run=run),
        *(
            Row(f"{side}, {nth} class{after}", labelled, run=run, judge=OneClass(name))
            for nth, name in zip(("first", "second"), looked_at, strict=True)
        ),
    )


def gan_diffusion(scale: str) -> Study:
    """Compare DCGAN with diffusion at equal images and equal minutes, in score and in speed of sampling.

    Arguments:
        scale: "tiny" (digits), "cpu" (Fashion-MNIST at 14x14), "lossy" or "paper" (cats and frogs of CIFAR-10).
    """
    n, seeds, minutes, looked_at = at(scale, SIZES)
    rows: list[Row] = []
    for side, (plain, labelled) in pairs(scale).items():
        rows += _rows(side, plain, labelled, looked_at)
        if minutes:
            clock = [f"train.minutes={minutes}"]
            timed = variant(plain, "minutes", clock), variant(labelled, "minutes", clock)
            rows += _rows(side, *timed, looked_at, f", {minutes:g} minutes")
    rows = [replace(row, paper=PAPER.get(row.name)) for row in rows]
    kinds = [row.name.removeprefix("GAN, ") for row in rows if row.name.startswith("GAN")]
    return Study(
        name="gan-diffusion",
        scale=scale,
        question="Is diffusion better than a GAN, and at what price?",
        varies="the kind of model; labels; whether images seen or minutes of training are equal",
        equal="data, n, extractor; images seen, or minutes of training where the row says so",
        rows=tuple(rows),
        metrics=("kid", "fd"),
        n=n,
        seeds=seeds,
        orderings=tuple(
            Ordering(f"{kind}: diffusion scores below the GAN", (f"diffusion, {kind}", f"GAN, {kind}"), "kid", SOURCE)
            for kind in kinds
        ),
        paper=f"{SOURCE}, FID of 1,000 images of CIFAR-10",
        timed=True,
        pictures=sheets,
    )
