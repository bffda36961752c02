"""Study: what helps a DCGAN, label smoothing, noise on D's input, more early channels, training longer, or a flatter D?

The rows are the report's models and the single changes between them, each at the full budget and at half; and what came
after DCGAN, at the full budget: layers of spectral norm 1 in D, with the cross entropy and with the hinge loss, R1
without any normalisation, and a projection of the class where there are classes.

Reference: a student report on cats of CIFAR-10, FID of 1,000 cats (floor 49.84): 512 epochs 113.3, 1024 epochs 109.1,
1024 epochs smoothed 125.6.
"""

from __future__ import annotations

from sfumato.experiments.figures import sheets
from sfumato.experiments.study import Ordering, Row, Study, at, variant
from sfumato.recipes.gans import course_dcgan_cats
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.studies._bases import cats, small_gan

# scale -> images judged, training seeds, training images (none for the recipe's own): GANs at 30,000 tell nothing apart
SIZES = {
    "tiny": (200, (0,), None),
    "cpu": (2000, (0, 1, 2), 120_000),
    "lossy": (1000, (0, 1), 120_000),
    "paper": (1000, (0,), None),
}
WIDER = {  # more channels where images are coarse
    "tiny": ("network.up=[32]", "network.down=[32]"),
    "cpu": ("network.up=256,64", "network.down=64,256"),
    "lossy": ("network.up=256,64", "network.down=64,256"),
    "paper": ("network.up=256,256,64", "network.down=128,128,256"),
}
PAPER = {"plain, half": 113.3, "plain": 109.1, "two-sided smoothing": 125.6}
SOURCE = "a student report on cats of CIFAR-10"


def variants(scale: str) -> dict[str, tuple[str, ...]]:
    """Return the changes of each row, by name."""
    smooth = ("objective.real=0.9", "objective.fake=0.1")
    noisy = ("objective.noise=0.1",)
    return {
        "plain": (),
        "one-sided smoothing": ("objective.real=0.9",),
        "two-sided smoothing": smooth,
        "noise": noisy,
        "early channels": WIDER[scale],
        "all": (*smooth, *noisy, *WIDER[scale]),
    }


def flatter(base: Recipe) -> dict[str, tuple[str, ...]]:
    """Return the changes that bound the discriminator's slope, by name, and with classes the projection."""
    found: dict[str, tuple[str, ...]] = {
        "spectral norm": ("network.norm=spectral",),
        "spectral norm, hinge": ("network.norm=spectral", "objective=hinge"),
        "R1": ("network.norm=plain", "objective.r1=1"),
    }
    return found | ({"projection": ("network.projection=true",)} if base.data.labels else {})


def gan_variants(scale: str) -> Study:
    """Compare DCGAN with label smoothing, annealed noise and more early channels, at two lengths of training.

    Arguments:
        scale: "tiny" (digits), "cpu" (Fashion-MNIST at 14x14), "lossy" or "paper" (cats of CIFAR-10).
    """
    n, seeds, images = at(scale, SIZES)
    base = course_dcgan_cats() if scale == "paper" else override(cats(small_gan(scale), scale), ["objective=gan"])
    if images:
        base = override(base, [f"train.images={images}"])

    halved = f"train.images={base.train.images // 2}"
    changes = variants(scale)
    changes |= {f"{name}, half": (*fields, halved) for name, fields in changes.items()} | flatter(base)
    rows = [Row(name, variant(base, name, fields), paper=PAPER.get(name)) for name, fields in changes.items()]
    return Study(
        name="gan-variants",
        scale=scale,
        question="What helps a DCGAN?",
        varies="label smoothing, noise on the discriminator's input, early channels, images seen, what keeps D flat",
        equal="data, optimiser, batch, latents, n",
        rows=tuple(rows),
        n=n,
        seeds=seeds,
        orderings=(
            Ordering("twice the training scores lower", ("plain", "plain, half"), source=SOURCE),
            Ordering("smoothing scores above none", ("plain", "two-sided smoothing"), source=SOURCE),
            Ordering(
                "one-sided scores below two-sided smoothing",
                ("one-sided smoothing", "two-sided smoothing"),
                source="Salimans et al. 2016, section 3.4",
            ),
            Ordering.below("spectral norm", "plain", source="Miyato et al. 2018, table 2"),
            Ordering.below("R1", "plain", source="Mescheder et al. 2018"),
        ),
        paper=f"{SOURCE}, FID of 1,000 cats of CIFAR-10",
        timed=True,
        pictures=sheets,
    )
