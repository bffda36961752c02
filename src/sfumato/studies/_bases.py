"""What the studies are made of at each scale.

tiny     digits, a network of 16 channels, 1,024 images seen: seconds, to see that a study runs
cpu      Fashion-MNIST at 14x14 (or digits where a study says so), the package's recipes for two cores with a
         narrower network; studies that train one run or two train it for longer
cpu28    Fashion-MNIST at 28x28, the package's recipes for two cores as they are: hours
lossy    the same on cats and frogs of CIFAR-10 as JPEG files, at 16x16, for the studies that the report
         did on them: its scores stand beside nothing but each other
paper    the published configuration
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sfumato.recipes.digits import edm_digits
from sfumato.recipes.digits_families import ddpm_digits, iddpm_digits
from sfumato.recipes.fashion_mnist import ddpm_fashion_mnist_cpu, edm_fashion_mnist_cpu
from sfumato.recipes.gans import dcgan_digits, dcgan_fashion_mnist_cpu
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe

TINY = (
    *("network.width=16", "network.head_width=16", "network.blocks=1", "network.embedding=32"),
    *("train.images=1024", "train.batch=64", "train.optimizer=adam", "train.optimizer.lr=0.004"),
    *("train.rate.warmup=128", "train.precision=fp32", "train.log_every=256", "train.sheet_every=100000000"),
    *("ema.power=0.10", "ema.use=power-0.10"),
)


def tiny(recipe: Recipe) -> Recipe:
    """Return a digits recipe on the compact U-Net, trained for seconds."""
    return override(recipe, TINY)


SMALL = (
    *("data.size=14", "network.patch=1", "network.width=32", "network.head_width=32"),
    *("train.images=30000", "train.log_every=1280", "train.sheet_every=100000000", "ema.power=0.10"),
    *("evaluate.extractor=fashion-mnist14",),
)  # of the package's recipes: a quarter of the pixels and of the weights


LONGER = ("train.images=120000",)


# DDPM's own walk: its fresh noise undoes errors that DDIM carries to the end when a network was trained for so short
ANCESTRAL = ("sample.sampler=ancestral", "sample.sampler.variance=small", "sample.sampler.clip=true")


# colour, and no extractor of the package knows them: features of a network that was never trained
LOSSY = ("data.name=cifar10-jpeg75", "data.size=16", "data.classes=cat,frog", "evaluate.extractor=random")


def small(recipe: Recipe, scale: str = "cpu") -> Recipe:
    """Return a recipe at 14x14, or of cats and frogs at 16x16, for a minute or two of one core.

    Arguments:
        recipe: Recipe on Fashion-MNIST.
        scale: "cpu" or "lossy".
    """
    made = override(recipe, SMALL)
    if scale == "lossy":
        made = override(made, LOSSY)
    small_data = "cifar10-jpeg16" if scale == "lossy" else "fashion-mnist14"
    return replace(made, name=recipe.name.replace("fashion-mnist-cpu", small_data))


def longer(recipe: Recipe) -> Recipe:
    """Return a recipe at 14x14, trained four times as long: for studies that train one run or two."""
    return replace(override(small(recipe), LONGER), name=f"{small(recipe).name}-long")


def sized(digits: Recipe, clothes: Recipe, scale: str) -> Recipe:
    """Return the recipe of a scale: of digits at "tiny", else of Fashion-MNIST, whole at "cpu28" and small at "cpu"."""
    return tiny(digits) if scale == "tiny" else clothes if scale == "cpu28" else small(clothes, scale)


def edm(scale: str) -> Recipe:
    """Return the continuous run that samplers and guidance are tried on: "tiny", "cpu" or "cpu28"."""
    return longer(edm_fashion_mnist_cpu()) if scale == "cpu" else sized(edm_digits(), edm_fashion_mnist_cpu(), scale)


def ddpm(scale: str) -> Recipe:
    """Return the discrete run of DDPM: "tiny" or "cpu"."""
    return tiny(ddpm_digits()) if scale == "tiny" else longer(ddpm_fashion_mnist_cpu())


def iddpm(scale: str) -> Recipe:
    """Return the discrete run with a learned variance: "tiny" or "cpu", where it has `ddpm`'s settings."""
    return tiny(iddpm_digits()) if scale == "tiny" else longer(_iddpm_fashion_mnist())


def small_edm(scale: str) -> Recipe:
    """Return the continuous run of studies that train many: "tiny", "cpu" or "lossy"."""
    return sized(edm_digits(), edm_fashion_mnist_cpu(), scale)


def small_ddpm(scale: str) -> Recipe:
    """Return the discrete run of studies that train many: "tiny", "cpu" or "lossy"."""
    return sized(ddpm_digits(), ddpm_fashion_mnist_cpu(), scale)


def small_iddpm(scale: str, steps: int) -> Recipe:
    """Return the discrete run with a learned variance of studies that train many, sampled in some steps.

    Arguments:
        scale: "tiny" or "cpu".
        steps: Number of sampling steps.
    """
    made = tiny(iddpm_digits()) if scale == "tiny" else small(_iddpm_fashion_mnist())
    return override(made, ["sample.grid=respaced", f"sample.grid.steps={steps}"])


def small_gan(scale: str) -> Recipe:
    """Return the GAN of studies that train many, 8x8, 14x14, 16x16 or 28x28: "tiny", "cpu", "lossy" or "cpu28"."""
    quiet = ("train.sheet_every=100000000", "ema.half_life=()", "ema.use=raw")
    if scale == "tiny":
        small_net = ("network.up=[16]", "network.down=[16]", "train.images=1024", "train.log_every=256")
        return override(dcgan_digits(), (*quiet, *small_net))
    if scale == "cpu28":
        return override(dcgan_fashion_mnist_cpu(), quiet)
    smaller = ("data.size=14", "train.images=30000", "train.log_every=1280")  # maps of 4, 7 and 14, or 4, 8 and 16
    if scale == "lossy":
        made = override(override(dcgan_fashion_mnist_cpu(), (*quiet, *smaller)), LOSSY)
        return replace(made, name="dcgan-cifar10-jpeg16")
    scored = ("evaluate.extractor=fashion-mnist14",)
    return replace(override(dcgan_fashion_mnist_cpu(), (*quiet, *smaller, *scored)), name="dcgan-fashion-mnist14")


def seen(recipe: Recipe, images: int) -> Recipe:
    """Return a recipe of another budget of training images."""
    return replace(recipe, train=replace(recipe.train, images=images))


def only(recipe: Recipe, classes: Sequence[str | int], labels: bool) -> Recipe:
    """Return a recipe on some classes only, told of them or not."""
    chosen = replace(recipe.data, classes=tuple(classes), labels=labels)
    name = f"{recipe.name}-{'-'.join(map(str, classes))}{'' if labels else '-unlabelled'}"
    return replace(recipe, data=chosen, name=name, shape=None)


def cats(recipe: Recipe, scale: str) -> Recipe:
    """Return a recipe for the cats alone at "lossy" scale, as the report had it; else as it is."""
    return only(recipe, ("cat",), False) if scale == "lossy" else recipe


def _iddpm_fashion_mnist() -> Recipe:
    """Return DDPM's recipe with iDDPM's cosine chain, learned variance, L_hybrid and ancestral sampler."""
    chosen = ("schedule=cosine", "schedule.steps=1000", "variance=range", "objective=hybrid")
    sampled = ("sample.sampler=ancestral", "sample.sampler.variance=learned", "sample.sampler.clip=true")
    return replace(override(ddpm_fashion_mnist_cpu(), (*chosen, *sampled)), name="iddpm-fashion-mnist-cpu")
