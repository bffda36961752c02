"""What recipes of papers share: shapes known without the data, averages, ancestral sampling, evaluation at full scale.

Papers count updates and state the decay of an average; here everything is counted in images. An average that keeps the
share d per update of B images has the half-life B ln 2 / -ln d.
"""

from __future__ import annotations

import math
from dataclasses import replace

from sfumato.runs.recipe import Data, Ema, Evaluate, Part, Recipe, Sample, Shape, Train, part

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MULT_256 = (1, 1, 2, 2, 4, 4)  # of the levels at 256x256
FID_50K = Evaluate("inception", 50_000)
RAW = Ema(power=(), half_life=(), use="raw")


def square(size: int, classes: int = 0, channels: int = 3) -> Shape:
    """Return the shape of square images; the names of the classes come from the data."""
    return Shape(channels, size, size, tuple(map(str, range(classes))))


def cifar10(labels: bool = False) -> Shape:
    """Return the shape of CIFAR-10, with its classes if labelled."""
    return Shape(3, 32, 32, CIFAR10_CLASSES if labels else ())


def regression(name: str) -> Recipe:
    """Return what most papers share: unlabelled CIFAR-10, epsilon by L_simple, uniform levels, FID of 50,000 images."""
    return Recipe(
        name=name,
        data=Data("cifar10", labels=False),
        target=part("target", "eps"),
        c_in="one",
        draw=part("draw", "uniform"),
        weighting=part("weighting", "simple"),
        objective=part("objective", "denoising", stratified=False),
        evaluate=FID_50K,
        shape=cifar10(),
    )


def adam(updates: int, batch: int, lr: float, warmup: int = 0) -> Train:
    """Return training by Adam for a number of updates; with a warm-up (in updates), gradients are clipped at 1."""
    train = Train(images=updates * batch, batch=batch, optimizer=part("optimizer", "adam", lr=lr))
    if not warmup:
        return train
    return replace(train, rate=part("rate", "constant", warmup=float(warmup * batch)), clip=1.0)


def half_life(batch: int, decay: float) -> float:
    """Return the half-life, in million images, of an average that keeps the share `decay` per update.

    >>> half_life(128, 0.9999)
    0.8872
    """
    return float(f"{batch * math.log(2) / -math.log(decay) / 1e6:.4g}")


def exponential(million_images: float, warmup: float = 0.0) -> Ema:
    """Return one exponential average of a half-life; `warmup` holds it to that share of the images seen."""
    return Ema(power=(), half_life=(million_images,), warmup=warmup, use=f"half-{million_images:g}")


def decaying(batch: int, decay: float, warmup: float = 0.0) -> Ema:
    """Return one exponential average that keeps the share `decay` per update of `batch` images."""
    return exponential(half_life(batch, decay), warmup)


def ancestral(variance: str, grid: Part | None = None) -> Sample:
    """Return ancestral sampling as the papers do it: x0 clipped at every step, by default on the full chain."""
    return Sample(part("sampler", "ancestral", variance=variance, clip=True), grid or part("grid", "full"))
