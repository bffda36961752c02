"""Colour on CPUs: CIFAR-10 as JPEG of quality 75 and halved colour resolution, which is LOSSY.

What is learned are the photographs with the traces of their compression. A score on them stands beside others on the
same file only, never beside a published number of CIFAR-10.
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes.fashion_mnist import edm_fashion_mnist_cpu
from sfumato.runs.recipe import Data, Evaluate, Recipe, part


def cifar10_lossy_cpu() -> Recipe:
    """EDM on LOSSY CIFAR-10 (32x32 colour, JPEG of quality 75), class-conditional, two hours of two CPU cores.

    Paper: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022 (network, optimiser
    and budget are ours).
    Command: sfumato train cifar10-lossy-cpu; sfumato evaluate runs/cifar10-lossy-cpu --weights resnet56-4bfd9763.th
    The network is that of edm-fashion-mnist-cpu with 96 channels, the rest that of fashion-mnist-cpu-hour. Scores are
    FD[resnet] against the test images of the same lossy file.
    Cost: two hours on two CPU cores.
    Expected: no published score.
    """
    base = edm_fashion_mnist_cpu()
    return replace(
        base,
        name="cifar10-lossy-cpu",
        data=Data("cifar10-jpeg75", flip=True),
        network=part("network", "unet", width=96, mult=(1, 2), blocks=2, attention=(1,), patch=2),
        draw=part("draw", "lognormal", mean=-0.9, std=1.2),
        train=replace(
            base.train,
            minutes=120.0,
            optimizer=part("optimizer", "muon", lr=0.01, rest_lr=1e-3, fewer_products=True),
            precision="bf16-winograd",
        ),
        sample=replace(base.sample, guidance=1.5, interval=(0.25, 4.0)),
        evaluate=Evaluate("resnet", 5000),
    )
