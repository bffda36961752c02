"""DDPM on cats of CIFAR-10, after a student report that compared it with DCGAN: seven denoisers.

The chain of 1000 steps, linear, or cosine clipped at 0.02; AdamW 3e-4 with its silent weight decay of 0.01; batch 16,
1024 epochs of 5000 cats; large variance, x0 not clipped, no average. Scores are FID of 1,000 images against cats of the
test set, where real cats against real cats score 49.84.
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes._paper import RAW, regression
from sfumato.runs.recipe import Data, Evaluate, Recipe, Sample, Shape, Train, part

TWO = {"widths": (64, 128, 256), "up": (64, 64)}
HALF = {"widths": (32, 64, 128), "up": (64, 64)}


def course_ddpm_cats() -> Recipe:
    """DDPM on cats of CIFAR-10: U-Net of three stages.

    Source: a student report that compared DDPM with DCGAN on cats of CIFAR-10.
    Command: sfumato train course-ddpm-cats; without attention in stage 3: network.plain=3
    Hardware and time: 0.06 EFLOP for 5 million images.
    Expected: FID 118.5 (n = 1,000, cats of the test set; floor 49.84).
    """
    return _cats("course-ddpm-cats")


def course_ddpm_cats_cosine() -> Recipe:
    """DDPM on cats of CIFAR-10 with a cosine chain whose betas are clipped at 0.02.

    Source: a student report that compared DDPM with DCGAN on cats of CIFAR-10. Clipping at 0.02 is another process than
    iDDPM's, which clips at 0.999.
    Command: sfumato train course-ddpm-cats-cosine
    Hardware and time: 0.06 EFLOP for 5 million images.
    Expected: FID 115.9 (n = 1,000, cats of the test set; floor 49.84).
    """
    return replace(_cats("course-ddpm-cats-cosine"), schedule=part("schedule", "cosine", steps=1000, clip=0.02))


def course_ddpm_cats_2xud() -> Recipe:
    """DDPM on cats of CIFAR-10: U-Net of two stages.

    Source: a student report that compared DDPM with DCGAN on cats of CIFAR-10.
    Command: sfumato train course-ddpm-cats-2xud; schedule=cosine schedule.clip=0.02 scores 97.3
    Hardware and time: 0.07 EFLOP for 5 million images.
    Expected: FID 100.1 (n = 1,000, cats of the test set; floor 49.84).
    """
    return _cats("course-ddpm-cats-2xud", **TWO)


def course_ddpm_cats_half() -> Recipe:
    """DDPM on cats of CIFAR-10: U-Net of two stages with half the channels.

    Source: a student report that compared DDPM with DCGAN on cats of CIFAR-10.
    Command: sfumato train course-ddpm-cats-half
    Hardware and time: 0.03 EFLOP for 5 million images.
    Expected: FID 114.7 (n = 1,000, cats of the test set; floor 49.84).
    """
    return _cats("course-ddpm-cats-half", **HALF, middle=(256, 256, 128))


def course_ddpm_cats_small() -> Recipe:
    """DDPM on cats of CIFAR-10: half the channels and a small middle.

    Source: a student report that compared DDPM with DCGAN on cats of CIFAR-10.
    Command: sfumato train course-ddpm-cats-small
    Hardware and time: 0.02 EFLOP for 5 million images.
    Expected: no score is quoted here.
    """
    return _cats("course-ddpm-cats-small", **HALF, middle=(256, 128), plain=(3,))


def course_ddpm_cats_plain() -> Recipe:
    """DDPM on cats of CIFAR-10: encoder and decoder without skips.

    Source: a student report that compared DDPM with DCGAN on cats of CIFAR-10. The step is told in thousandths, as
    `convnet` expects.
    Command: sfumato train course-ddpm-cats-plain
    Hardware and time: 0.006 EFLOP for 5 million images.
    Expected: no score is quoted here.
    """
    return replace(
        _cats("course-ddpm-cats-plain"),
        network=part("network", "convnet"),
        c_noise=part("conditioning", "index", scale=1e-3),
    )


def course_ddpm_cats_frogs() -> Recipe:
    """DDPM on cats and frogs of CIFAR-10, class-conditional, with the cosine chain clipped at 0.02.

    Source: a student report that compared DDPM with DCGAN on cats of CIFAR-10; its model of two classes has the chain
    of course-ddpm-cats-cosine. Compare with an unconditional model of one class at equal updates.
    Command: sfumato train course-ddpm-cats-frogs
    Hardware and time: 0.06 EFLOP for 5 million images.
    Expected: FID 102.9 for cats, 70.5 for frogs (n = 1,000, test set).
    """
    base = _cats("course-ddpm-cats-frogs")
    return replace(
        base,
        schedule=part("schedule", "cosine", steps=1000, clip=0.02),
        data=Data("cifar10", classes=("cat", "frog")),
        objective=part("objective", "denoising", label_dropout=0.0, stratified=False),
        shape=Shape(3, 32, 32, ("cat", "frog")),
    )


def _cats(name: str, **options: object) -> Recipe:
    return replace(
        regression(name),
        data=Data("cifar10", classes=("cat",), labels=False),
        schedule=part("schedule", "linear", steps=1000),
        network=part("network", "cifar-unet", **options),
        c_noise=part("conditioning", "index"),
        train=Train(images=1024 * 5000, batch=16, optimizer=part("optimizer", "adamw", lr=3e-4, weight_decay=0.01)),
        ema=RAW,
        sample=Sample(part("sampler", "ancestral", variance="large"), part("grid", "full")),
        evaluate=Evaluate("inception", 1000),
    )
