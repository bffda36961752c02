"""EDM on a small U-Net, after a student report: Fashion-MNIST, CIFAR-10 and CelebA at 128.

A small U-Net with conditional BatchNorm, EDM's preconditioning with an estimated sigma_data, noise held to 0.002-80,
labels dropped at 20%, Adam 1e-4, neither average, flips, dropout nor clipping. The report judged 50 Euler steps
(CelebA: stochastic Heun) by FID of 50,000 images against the test set, and split off validation images; here the split
is by hash. Attention can be dropped with network.attention=none: the ablation of the report.
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes._paper import CIFAR10_CLASSES, FID_50K, RAW, square
from sfumato.runs.recipe import Data, Part, Recipe, Sample, Shape, Train, part

EULER = Sample(part("sampler", "euler", gauge="ve"), part("grid", "karras", steps=50))
STOCHASTIC = Sample(
    part("sampler", "heun", churn=40.0, s_min=0.05, s_max=50.0, s_noise=1.003), part("grid", "karras", steps=50)
)
GARMENTS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def course_edm_fashion_mnist() -> Recipe:
    """EDM on a small U-Net: Fashion-MNIST padded to 32x32, class-conditional.

    Source: a student report on EDM; its guidance scale is 1.
    Command: sfumato train course-edm-fashion-mnist
    Hardware and time: 0.05 EFLOP for 5 million images (100 epochs).
    Expected: FID 10.26 conditional, 14.74 without attention, 19.60 unconditional (n = 50,000, test set).
    """
    return _course("fashion-mnist", Data("fashion-mnist", pad=32, val=0.1667), 5_000_000, Shape(1, 32, 32, GARMENTS))


def course_edm_cifar10() -> Recipe:
    """EDM on a small U-Net: CIFAR-10, class-conditional, guidance 2.5.

    Source: a student report on EDM.
    Command: sfumato train course-edm-cifar10
    Hardware and time: 0.08 EFLOP for 8 million images (200 epochs).
    Expected: FID 22.55 conditional at scale 2.5, 24.32 without attention, 30.66 unconditional (n = 50,000, test set).
    """
    base = _course("cifar10", Data("cifar10", val=0.2), 8_000_000, Shape(3, 32, 32, CIFAR10_CLASSES))
    return replace(base, sample=replace(base.sample, guidance=2.5))


def course_edm_celeba_big() -> Recipe:
    """EDM on a small U-Net: CelebA at 128x128, the big network.

    Source: a student report on EDM. The strength of its stochastic Heun is not stated: EDM's is used.
    Command: sfumato train course-edm-celeba-big
    Hardware and time: 3.8 EFLOP for 19 million images (125 epochs).
    Expected: no score is quoted here.
    """
    return _celeba("big", (2, 2, 2, 2), (32, 16, 8), (4, 4, 4, 8, 8))


def course_edm_celeba_small() -> Recipe:
    """EDM on a small U-Net: CelebA at 128x128, the small network.

    Source: a student report on EDM.
    Command: sfumato train course-edm-celeba-small
    Hardware and time: 3.4 EFLOP for 19 million images (125 epochs).
    Expected: FID 18.29 (n = 50,000, test set).
    """
    return _celeba("small", (2, 2, 2, 2), (16, 8), (4, 4, 4, 4, 4))


def course_edm_celeba_tiny() -> Recipe:
    """EDM on a small U-Net: CelebA at 128x128, the tiny network.

    Source: a student report on EDM.
    Command: sfumato train course-edm-celeba-tiny
    Hardware and time: 3.2 EFLOP for 19 million images (125 epochs).
    Expected: FID 21.89, 26.36 without attention (n = 50,000, test set).
    """
    return _celeba("tiny", (1, 2, 4), (16,), (4, 4, 4, 4), batch=64)


def _course(name: str, data: Data, images: int, shape: Shape, network: Part | None = None, batch: int = 32) -> Recipe:
    return Recipe(
        name=f"course-edm-{name}",
        data=data,
        target=part("target", "edm"),
        network=network or part("network", "condnorm-unet", norm="batch"),
        c_noise=part("conditioning", "quarter-log-nsr"),
        c_in="unit-variance",
        draw=part("draw", "lognormal", mean=-1.2, std=1.2, sigma_min=0.002, sigma_max=80.0),
        weighting=part("weighting", "edm"),
        objective=part("objective", "denoising", label_dropout=0.2, stratified=False),
        train=Train(images=images, batch=batch, optimizer=part("optimizer", "adam", lr=1e-4)),
        ema=RAW,
        sample=EULER,
        evaluate=FID_50K,
        shape=shape,
    )


def _celeba(
    kind: str, depths: tuple[int, ...], attention: tuple[int, ...], heads: tuple[int, ...], batch: int = 32
) -> Recipe:
    network = part("network", "condnorm-unet", depths=depths, attention=attention, heads=heads, norm="batch")
    data = Data("celeba", size=128, labels=False)
    base = _course(f"celeba-{kind}", data, 125 * 150_000, square(128), network, batch)
    return replace(base, sample=STOCHASTIC)
