"""What a method changes of a recipe, once, for the recipes of every data set that are made of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sfumato.runs.recipe import Part, Recipe, Sample, part

TWO_CALLS = Sample(
    part("sampler", "ddim", fresh=True), part("grid", "karras", steps=2, sigma_min=0.821, sigma_max=80.0)
)


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
