"""What recipes of papers share, from shapes and averages to evaluation, and what a method changes of a recipe.

Papers count updates and state the decay of an average; here everything is counted in images. An average that keeps the
share d per update of B images has the half-life B ln 2 / -ln d.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from sfumato.runs.recipe import Data, Ema, Evaluate, Part, Recipe, Sample, Shape, Train, part

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MULT_256 = (1, 1, 2, 2, 4, 4)  # of the levels at 256x256
FID_50K = Evaluate("inception", 50_000)
RAW = Ema(power=(), half_life=(), use="raw")
TWO_CALLS = Sample(
    part("sampler", "ddim", fresh=True), part("grid", "karras", steps=2, sigma_min=0.821, sigma_max=80.0)
)


def square(size: int, classes: int = 0, channels: int = 3) -> Shape:
    """Return the shape of square images; the names of the classes come from the data."""
    return Shape(channels, size, size, tuple(map(str, range(classes))))


def cifar10(labels: bool = False) -> Shape:
    """Return the shape of CIFAR-10, with its classes if labelled."""
    return Shape(3, 32, 32, CIFAR10_CLASSES if labels else ())


def regression(name: str) -> Recipe:
    """Return what most papers share: unlabelled CIFAR-10, epsilon by L_simple, uniform levels, FID of 50,000 images."""
    base = Recipe(
        name=name,
        data=Data("cifar10", labels=False),
        objective=part("objective", "denoising", stratified=False),
        evaluate=FID_50K,
        shape=cifar10(),
    )
    return noise_predicted(base, name)


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


def noise_predicted(base: Recipe, name: str) -> Recipe:
    """Return a recipe with what the families of epsilon and uniform levels share."""
    return replace(
        base,
        name=name,
        target=part("target", "eps"),
        c_in="one",
        draw=part("draw", "uniform"),
        weighting=part("weighting", "simple"),
    )


def flow_matched(base: Recipe, name: str, steps: int) -> Recipe:
    """Return a recipe as flow matching with logit-normal times, sampled by Heun."""
    return replace(
        base,
        name=name,
        schedule=part("schedule", "flow"),
        target=part("target", "flow"),
        c_noise=part("conditioning", "flow-time"),
        c_in="one",
        draw=part("draw", "logit-normal"),
        weighting=part("weighting", "flow"),
        sample=Sample(part("sampler", "heun", gauge="flow"), part("grid", "flow", steps=steps)),
    )


def mean_flow(base: Recipe, name: str) -> Recipe:
    """Return a flow-matching recipe as MeanFlow: told where its steps end, and sampled in one."""
    return replace(
        base,
        name=name,
        network=base.network.with_options(two_levels=True),
        objective=part("objective", "meanflow", steps=0.5),
        sample=Sample(part("sampler", "ddim"), part("grid", "flow", steps=1)),
    )


def image_predicted(base: Recipe, name: str, network: Part) -> Recipe:
    """Return a flow-matching recipe as JiT: x0 for its target, the error that of the velocity."""
    return replace(
        base,
        name=name,
        network=network,
        target=part("target", "x0"),
        c_noise=part("conditioning", "signal-share"),
        c_in="unit-line",
        draw=part("draw", "logit-normal", mean=0.8, std=0.8),
        weighting=part("weighting", "flow", least=0.05),
    )


def tuned(base: Recipe, name: str, **train: Any) -> Recipe:
    """Return a recipe of EDM as consistency tuning of its own run, sampled in two calls; `train` changes more."""
    optimizer = part("optimizer", "radam", lr=5e-4)
    return replace(
        base,
        name=name,
        draw=part("draw", "lognormal", mean=-1.1, std=2.0),
        objective=part("objective", "consistency", stages=8, label_dropout=0.1),
        train=replace(base.train, start=f"runs/{base.name}", optimizer=optimizer, **train),
        sample=TWO_CALLS,
    )


def distilled(base: Recipe, name: str, halvings: int, sample: Sample, **train: Any) -> Recipe:
    """Return a recipe as progressive distillation of its own run, down to the steps of `sample`."""
    steps = sample.grid.options["steps"] * 2**halvings
    optimizer, rate = part("optimizer", "adam", lr=5e-4), part("rate", "stages", count=halvings)
    return replace(
        base,
        name=name,
        objective=part("objective", "distill", steps=steps, halvings=halvings, label_dropout=0.1),
        train=replace(base.train, start=f"runs/{base.name}", optimizer=optimizer, rate=rate, **train),
        sample=sample,
    )
