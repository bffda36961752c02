"""GANs, the baseline of diffusion: DCGAN, published, three after a student report, and two for a CPU; and SNGAN.

DCGAN:  Adam 2e-4 with beta1 0.5, batch 128, N(0, 0.02) weights. The report's have images of 32 pixels, z of 128 and 512
or 1024 epochs of 5000 cats; its scores are FID of 1,000 images against cats of the test set, where real cats score
49.84 and its diffusion models 97 to 119.

References:
    Radford, Metz, Chintala. Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
    Networks. 2016. https://arxiv.org/abs/1511.06434
    Miyato, Kataoka, Koyama, Yoshida. Spectral Normalization for Generative Adversarial Networks. 2018.
    https://arxiv.org/abs/1802.05957
    Miyato, Koyama. cGANs with Projection Discriminator. 2018. https://arxiv.org/abs/1802.05637
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes._paper import RAW
from sfumato.runs.recipe import Data, Ema, Evaluate, Part, Recipe, Shape, Train, part

EARLY = {"up": (256, 256, 64), "down": (128, 128, 256)}  # the report's "modified": more early channels
CATS = 5000  # training images of one class of CIFAR-10


def dcgan_lsun_bedroom() -> Recipe:
    """DCGAN on LSUN bedrooms at 64x64, unconditional.

    Paper: Radford et al., Unsupervised Representation Learning with DCGAN, 2016: one epoch, uniform z of length 100.
    Command: sfumato train dcgan-lsun-bedroom data.name=folder:BEDROOMS
    Hardware and time: 7 PFLOP for 3 million images.
    Expected: no score is quoted there.
    """
    return Recipe(
        name="dcgan-lsun-bedroom",
        data=Data("folder:BEDROOMS", size=64, labels=False),
        network=part("network", "dcgan", latent=100, up=(512, 256, 128, 64), down=(64, 128, 256, 512), prior="uniform"),
        objective=part("objective", "gan"),
        train=Train(images=3_033_042, batch=128, optimizer=_adam()),
        ema=RAW,
        evaluate=Evaluate("inception", 50_000),
        shape=Shape(3, 64, 64),
    )


def course_dcgan_cats() -> Recipe:
    """DCGAN on cats of CIFAR-10, 1024 epochs.

    Source: a student report that compared DDPM with DCGAN on cats of CIFAR-10.
    Command: sfumato train course-dcgan-cats; half as long: train.images=2560000
    Hardware and time: 2.0 PFLOP for 5 million images.
    Expected: FID 109.1, after 512 epochs 113.3 (n = 1,000, cats of the test set; floor 49.84).
    """
    return _cats("course-dcgan-cats")


def course_dcgan_cats_modified() -> Recipe:
    """DCGAN on cats of CIFAR-10 with more early channels, smoothed labels and noise on D's input.

    Source: a student report that compared DDPM with DCGAN on cats of CIFAR-10.
    Command: sfumato train course-dcgan-cats-modified
    Hardware and time: 3.3 PFLOP for 5 million images.
    Expected: FID 125.6 for the smoothed model of 1024 epochs (n = 1,000, cats of the test set; floor 49.84).
    """
    return replace(
        _cats("course-dcgan-cats-modified", **EARLY), objective=part("objective", "gan", real=0.9, fake=0.1, noise=0.1)
    )


def course_dcgan_cats_frogs() -> Recipe:
    """DCGAN on cats and frogs of CIFAR-10, class-conditional: the embedding as extra channels of G and D.

    Source: a student report that compared DDPM with DCGAN on cats of CIFAR-10; smoothed labels.
    Command: sfumato train course-dcgan-cats-frogs
    Hardware and time: 2.7 PFLOP for 5 million images.
    Expected: FID 231.7 for cats, 181.7 for frogs (n = 1,000, test set); its diffusion model 102.9 and 70.5.
    """
    return replace(
        _cats("course-dcgan-cats-frogs", up=EARLY["up"]),
        data=Data("cifar10", classes=("cat", "frog")),
        objective=part("objective", "gan", real=0.9, fake=0.1),
        shape=Shape(3, 32, 32, ("cat", "frog")),
    )


def dcgan_fashion_mnist_cpu() -> Recipe:
    """DCGAN on Fashion-MNIST (28x28), class-conditional, for two CPU cores.

    Paper: Radford et al., Unsupervised Representation Learning with DCGAN, 2016; class embedding in G and D, one-sided
    smoothing and an average of the weights are ours.
    Command: sfumato train dcgan-fashion-mnist-cpu
    Cost: 200,000 images, the budget of the diffusion recipes beside it.
    Measured here: FD[fashion_mnist] 4.95 [4.77, 5.14]; n = 5,000 against the 10,000 test images, floor -0.001 [-0.008,
    0.007], one seed, one core of an AMD EPYC, torch 2.13.0 (`sfumato evaluate runs/dcgan-fashion-mnist-cpu --n 5000`).
    """
    return Recipe(
        name="dcgan-fashion-mnist-cpu",
        data=Data("fashion-mnist"),
        network=part("network", "dcgan", up=(128, 64), down=(64, 128)),
        objective=part("objective", "gan", real=0.9),
        train=Train(images=200_000, batch=64, optimizer=_adam()),
        ema=Ema(power=(), half_life=(0.01,), use="half-0.01"),
        evaluate=Evaluate("fashion-mnist", 5000),
    )


def dcgan_digits() -> Recipe:
    """DCGAN on the UCI digits (8x8), class-conditional: seconds on a CPU.

    Paper: Radford et al., Unsupervised Representation Learning with DCGAN, 2016; class embedding in G and D, one-sided
    smoothing and an average of the weights are ours.
    Command: sfumato train dcgan-digits
    Cost: 40,000 images, the budget of the diffusion recipes beside it; 35 s on one busy core of an Intel Xeon.
    Measured here: FD[digits] 1.70 [1.22, 2.18]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09], one
    seed, one core of an AMD EPYC (`sfumato evaluate runs/dcgan-digits`).
    """
    return Recipe(
        name="dcgan-digits",
        data=Data("digits"),
        network=part("network", "dcgan", latent=32, up=(64,), down=(64,)),
        objective=part("objective", "gan", real=0.9),
        train=Train(images=40_000, batch=64, optimizer=_adam()),
        ema=Ema(power=(), half_life=(0.002,), use="half-0.002"),
        evaluate=Evaluate("digits", 1000),
    )


def sngan_cifar10() -> Recipe:
    """SNGAN on CIFAR-10, unconditional: residual blocks, layers of spectral norm 1, hinge loss.

    Paper: Miyato et al., Spectral Normalization for Generative Adversarial Networks, 2018, table 4 and its authors'
    settings: Adam 2e-4 with beta1 0 and beta2 0.9, five batches of 64 for the discriminator to one for the generator,
    50,000 steps of the generator, a rate that falls linearly to 0. There the generator's batch is of 128; here of 64.
    Command: sfumato train sngan-cifar10; with classes and a projection: data.labels=true
    Hardware and time: counted by `sfumato explain sngan-cifar10`; not trained here.
    Expected: no score is quoted here.
    """
    return Recipe(
        name="sngan-cifar10",
        data=Data("cifar10", labels=False),
        network=part("network", "sngan"),
        objective=part("objective", "hinge", every=5),
        train=Train(
            images=50_000 * 5 * 64, batch=64, optimizer=_adam(beta1=0.0, beta2=0.9), rate=part("rate", "linear")
        ),
        ema=RAW,
        evaluate=Evaluate("inception", 50_000),
        shape=Shape(3, 32, 32),
    )


def sngan_digits() -> Recipe:
    """SNGAN on the UCI digits (8x8), class-conditional by projection: minutes on a CPU.

    Paper: Miyato and Koyama, cGANs with Projection Discriminator, 2018; one batch for both sides and an average of the
    weights are ours.
    Command: sfumato train sngan-digits
    Cost: 40,000 images, the budget of the recipes beside it.
    Measured here: FD[digits] 0.08 [-0.25, 0.42]; n = 1,000 against the 360 test digits, floor -0.16 [-0.41, 0.09], one
    seed, one shared core of an AMD EPYC, torch 2.13.0 (`sfumato evaluate runs/sngan-digits --n 1000`).
    """
    return Recipe(
        name="sngan-digits",
        data=Data("digits"),
        network=part("network", "sngan", latent=32, up=(64,), down=(64,), flat=1),
        objective=part("objective", "hinge"),
        train=Train(images=40_000, batch=32, optimizer=_adam(lr=5e-4, beta1=0.0, beta2=0.9)),
        ema=Ema(power=(), half_life=(0.002,), use="half-0.002"),
        evaluate=Evaluate("digits", 1000),
    )


def _adam(lr: float = 2e-4, beta1: float = 0.5, **options: float) -> Part:
    return part("optimizer", "adam", lr=lr, beta1=beta1, **options)


def _cats(name: str, **options: object) -> Recipe:
    return Recipe(
        name=name,
        data=Data("cifar10", classes=("cat",), labels=False),
        network=part("network", "dcgan", **options),
        objective=part("objective", "gan"),
        train=Train(images=1024 * CATS, batch=128, optimizer=_adam()),
        ema=RAW,
        evaluate=Evaluate("inception", 1000),
        shape=Shape(3, 32, 32),
    )
