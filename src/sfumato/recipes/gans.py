"""DCGAN, the baseline of diffusion: the published one, three after a student report, and two for a CPU.

Adam 2e-4 with beta1 0.5, batch 128, N(0, 0.02) weights. The report's have images of 32 pixels, z of 128 and 512
or 1024 epochs of 5000 cats; its scores are FID of 1,000 images against cats of the test set, where real cats score
49.84 and its diffusion models 97 to 119.

References:
    Radford, Metz, Chintala. Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
    Networks. 2016. https://arxiv.org/abs/1511.06434
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
    Measured here: FD[digits] 1.49 [1.00, 1.98]; n = 1,000 against the 360 test digits, floor -0.16, one seed, torch
    2.13.0 on that core (`sfumato evaluate runs/dcgan-digits`).
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


def _adam() -> Part:
    return part("optimizer", "adam", lr=2e-4, beta1=0.5)


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
