"""Images in one call to four, small: MeanFlow from nothing, and students of the Fashion-MNIST teachers.

MeanFlow trains at the teacher's own cost and needs no teacher. Consistency tuning and progressive distillation begin
from a run, ``train.start``, with half of its images again. Those on Fashion-MNIST compute in fp32: their targets are
differences of two answers, or a derivative, in which half precision has few digits left.
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes._paper import distilled, mean_flow, tuned
from sfumato.recipes.digits_families import flow_digits
from sfumato.recipes.fashion_mnist import edm_fashion_mnist_cpu, flow_fashion_mnist_cpu
from sfumato.runs.recipe import Recipe, Sample, part


def meanflow_digits() -> Recipe:
    """MeanFlow on digits: images in one call, trained from nothing (grid.steps=2 for two).

    Paper: Geng et al., Mean Flows for One-step Generative Modeling, 2025 (network, optimiser and budget are ours; so
    are the levels, those of flow-digits; half of the images move, a quarter in the paper).
    Command: sfumato train meanflow-digits
    Hardware and time: two minutes on two CPU cores.
    Expected: no published score.
    """
    return mean_flow(flow_digits(), "meanflow-digits")


def meanflow_fashion_mnist_cpu() -> Recipe:
    """MeanFlow on Fashion-MNIST (28x28), class-conditional, in one call, for two CPU cores.

    Paper: Geng et al., Mean Flows for One-step Generative Modeling, 2025 (network, optimiser and budget are ours).
    Command: sfumato train meanflow-fashion-mnist-cpu
    Cost: 200,000 images, as flow-fashion-mnist-cpu, each step about a half dearer.
    Expected: no published score.
    """
    recipe = mean_flow(flow_fashion_mnist_cpu(), "meanflow-fashion-mnist-cpu")
    return replace(recipe, train=replace(recipe.train, precision="fp32"))


def ect_fashion_mnist_cpu() -> Recipe:
    """Consistency tuning on Fashion-MNIST: edm-fashion-mnist-cpu taken to two calls (grid.steps=1 for one).

    Paper: Geng et al., Consistency Models Made Easy, 2024 (network, optimiser and budget are ours).
    Command: sfumato train ect-fashion-mnist-cpu train.start=runs/edm-fashion-mnist-cpu
    Cost: 100,000 images, after edm-fashion-mnist-cpu.
    Expected: no published score.
    """
    return tuned(edm_fashion_mnist_cpu(), "ect-fashion-mnist-cpu", images=100_000, precision="fp32")


def distill_fashion_mnist_cpu() -> Recipe:
    """Progressive distillation on Fashion-MNIST: flow-fashion-mnist-cpu taken from 32 steps to 2 in 4 halvings.

    Paper: Salimans and Ho, Progressive Distillation for Fast Sampling of Diffusion Models, 2022 (network, optimiser and
    budget are ours; so is the straight line, where the paper has the cosine schedule).
    Command: sfumato train distill-fashion-mnist-cpu train.start=runs/flow-fashion-mnist-cpu
    For one call: objective.halvings=5 sample.grid.steps=1
    Cost: 100,000 images, after flow-fashion-mnist-cpu.
    Expected: no published score.
    """
    sample = Sample(part("sampler", "ddim"), part("grid", "flow", steps=2))
    more = {"images": 100_000, "precision": "fp32"}
    return distilled(flow_fashion_mnist_cpu(), "distill-fashion-mnist-cpu", halvings=4, sample=sample, **more)
