"""Study: where should diffusion happen, in pixels, in a latent that was learned before it, or in one learned with it?

Every way has seen the same number of training images in all; the two stages share them. Beside the distance of samples
stand the bits of held-out pixels, what an autoencoder loses, and how many images a second are made.

References:
    Vahdat, Kreis, Kautz. Score-based Generative Modeling in Latent Space. 2021, Table 2 (joint training against two
    stages). https://arxiv.org/abs/2106.05931
    Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. 2022, section 4.1.
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sfumato.experiments.figures import sheets
from sfumato.experiments.judges import Coding
from sfumato.experiments.study import Ordering, Row, Study, at
from sfumato.recipes.latents import (
    autoencoder_digits,
    autoencoder_fashion_mnist_cpu,
    latent_edm_digits,
    latent_edm_fashion_mnist_cpu,
    lsgm_digits,
    lsgm_fashion_mnist_cpu,
)
from sfumato.runs.override import override
from sfumato.runs.recipe import Latent, Recipe
from sfumato.studies._bases import SMALL, TINY, seen, small_edm

# scale -> training images in all, images judged, images whose bits are counted, levels that they are counted at, seeds
SIZES = {"tiny": (1024, 80, 20, 10, (0,)), "cpu": (120_000, 2000, 200, 100, (0, 1, 2))}
CODER = ("network.factor=2", "network.latents=4", "network.width=32", "network.mult=1")  # 14x14 become 7x7 of four
SEVENTH = ("network.mult=1", "network.attention=0", "network.blocks=2")  # a side of 7 is not halved


def latent(scale: str) -> Study:
    """Compare diffusion in pixels, on latents in two stages, and trained together with the autoencoder.

    Arguments:
        scale: "tiny" (digits) or "cpu" (Fashion-MNIST at 14x14).
    """
    images, n, counted, levels, seeds = at(scale, SIZES)
    coder, staged, joint = _tiny() if scale == "tiny" else _cpu()
    judge = Coding(counted, levels)
    return Study(
        name="latent",
        scale=scale,
        question="Where should diffusion happen: in pixels, in a latent learned before, or in one learned with it?",
        varies="what is walked, and what learns when",
        equal=f"{images:,} training images in all, those of an autoencoder included; data, sampler, grid, n",
        rows=(
            Row("pixels", seen(small_edm(scale), images), judge=judge),
            Row("two stages", seen(staged, images // 2), judge=judge),
            Row("joint", seen(joint, images), judge=judge),
            Row("autoencoder", seen(coder, images // 2), judge=judge),
        ),
        metrics=("fd", "kid", "precision", "recall"),
        n=n,
        seeds=seeds,
        starts={"two stages": "autoencoder"},
        orderings=(Ordering.below("joint", "two stages", "Vahdat et al. 2021, Table 2"),),
        timed=True,
        pictures=sheets,
    )


def _tiny() -> tuple[Recipe, Recipe, Recipe]:
    budget = _budget(TINY)
    return (
        override(autoencoder_digits(), [*budget, "network.width=16"]),
        override(latent_edm_digits(), TINY),
        override(lsgm_digits(), [*budget, "network.width=16", "network.prior=16", "network.prior_blocks=1"]),
    )


def _cpu() -> tuple[Recipe, Recipe, Recipe]:
    budget = [*_budget(SMALL), *CODER]
    prior = ("network.prior=32", "network.prior_blocks=2", "network.head_width=32")
    staged = replace(latent_edm_fashion_mnist_cpu(), latent=Latent(4, 2))
    return (
        _named(override(autoencoder_fashion_mnist_cpu(), budget)),
        _named(override(staged, [*SMALL, *SEVENTH])),
        _named(override(lsgm_fashion_mnist_cpu(), [*budget, *prior])),
    )


def _budget(settings: Sequence[str]) -> list[str]:
    """Return the settings of a scale that are not about the compact U-Net."""
    return [text for text in settings if not text.startswith("network.")]


def _named(recipe: Recipe) -> Recipe:
    return replace(recipe, name=recipe.name.replace("fashion-mnist-cpu", "fashion-mnist14"))
