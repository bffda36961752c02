"""What the studies are made of at each scale.

    tiny     digits, a network of 16 channels, 1,024 images seen: seconds, to see that a study runs
    cpu      Fashion-MNIST (or digits where a study says so), the recipes of the house for two cores
    paper    the published configuration
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes.digits import edm_digits
from sfumato.recipes.digits_families import ddpm_digits, iddpm_digits
from sfumato.recipes.fashion_mnist import ddpm_fashion_mnist_cpu, edm_fashion_mnist_cpu
from sfumato.training.recipe import Recipe, override

TINY = (
    *("network.width=16", "network.head_width=16", "network.blocks=1", "network.embedding=32"),
    *("train.images=1024", "train.batch=64", "train.optimizer=adam", "train.optimizer.lr=0.004"),
    *("train.rate.warmup=128", "train.precision=fp32", "train.log_every=256", "train.sheet_every=100000000"),
    *("ema.power=0.10", "ema.use=power-0.10"),
)


def tiny(recipe: Recipe) -> Recipe:
    """Return a digits recipe on the house's compact U-Net, trained for seconds."""
    return override(recipe, TINY)


def edm(scale: str) -> Recipe:
    """Return the continuous run that samplers and guidance are tried on: "tiny" or "cpu"."""
    return tiny(edm_digits()) if scale == "tiny" else edm_fashion_mnist_cpu()


def ddpm(scale: str) -> Recipe:
    """Return the discrete run of DDPM: "tiny" or "cpu"."""
    return tiny(ddpm_digits()) if scale == "tiny" else ddpm_fashion_mnist_cpu()


def iddpm(scale: str) -> Recipe:
    """Return the discrete run with a learned variance: "tiny" or "cpu"; the latter is `ddpm`'s but for what is iDDPM's.

    That is the cosine chain, the learned variance and L_hybrid, sampled by the ancestral sampler.
    """
    if scale == "tiny":
        return tiny(iddpm_digits())
    chosen = ("schedule=cosine", "schedule.steps=1000", "variance=range", "objective=hybrid")
    sampled = ("sample.sampler=ancestral", "sample.sampler.variance=learned", "sample.sampler.clip=true")
    return replace(override(ddpm("cpu"), (*chosen, *sampled)), name="iddpm-fashion-mnist-cpu")
