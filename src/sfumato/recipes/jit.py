"""JiT at paper scale on ImageNet at 256x256: a transformer on patches of 16x16 pixels that answers the clean image.

Time runs from noise to image in the paper: its logit-normal draw of mean -0.8 is one of mean 0.8 here, where the
straight-line time grows with the noise. The weight of nearly clean levels is bounded at a share of noise of 0.05.
Guidance is confined to shares of signal above 0.1, which is sigma / alpha <= 9.

References:
    Li, He. Back to Basics: Let Denoising Generative Models Denoise. 2025. https://arxiv.org/abs/2511.13720
"""

from __future__ import annotations

from sfumato.recipes._paper import FID_50K, decaying, image_predicted, square
from sfumato.recipes.fashion_mnist import flow_fashion_mnist_cpu
from sfumato.runs.recipe import Data, Recipe, Sample, Train, part

IMAGENET = 1_281_167  # training images


def jit_b16_imagenet256() -> Recipe:
    """JiT-B/16 on ImageNet at 256x256.

    Paper: Li and He, Back to Basics: Let Denoising Generative Models Denoise, 2025.
    Command: sfumato train jit-b16-imagenet256 data.name=folder:PATH
    Hardware and time: for 200 epochs at batch 1024.
    Expected: see the paper; its scores were not at hand to be checked.
    """
    return _jit("jit-b16-imagenet256", width=768, depth=12, heads=12, bottleneck=128, context_from=4)


def jit_l16_imagenet256() -> Recipe:
    """JiT-L/16 on ImageNet at 256x256.

    Paper: Li and He, 2025.
    Command: sfumato train jit-l16-imagenet256 data.name=folder:PATH
    Hardware and time: for 200 epochs at batch 1024.
    Expected: see the paper; its scores were not at hand to be checked.
    """
    return _jit("jit-l16-imagenet256", width=1024, depth=24, heads=16, bottleneck=128, context_from=8)


def jit_h16_imagenet256() -> Recipe:
    """JiT-H/16 on ImageNet at 256x256, with dropout in the middle half of its blocks.

    Paper: Li and He, 2025.
    Command: sfumato train jit-h16-imagenet256 data.name=folder:PATH
    Hardware and time: for 200 epochs at batch 1024.
    Expected: see the paper; its scores were not at hand to be checked.
    """
    return _jit("jit-h16-imagenet256", width=1280, depth=32, heads=16, bottleneck=256, context_from=10, dropout=0.2)


def jit_fashion_mnist_cpu() -> Recipe:
    """JiT on Fashion-MNIST (28x28), class-conditional, for two CPU cores: 49 tokens of 4x4 pixels.

    Paper: Li and He, 2025 (size, optimiser and budget are ours).
    Command: sfumato train jit-fashion-mnist-cpu
    Hardware and time: 200,000 images.
    Expected: no published score.
    """
    network = part("network", "jit", patch=4, width=256, depth=8, heads=8, bottleneck=16, context=4, context_from=3)
    return image_predicted(flow_fashion_mnist_cpu(), "jit-fashion-mnist-cpu", network)


def _jit(name: str, **network: int | float) -> Recipe:
    batch = 1024
    return Recipe(
        name=name,
        data=Data("folder:imagenet", size=256, test=0.0, flip=True),
        schedule=part("schedule", "flow"),
        target=part("target", "x0"),
        network=part("network", "jit", patch=16, context=32, **network),
        c_noise=part("conditioning", "signal-share"),
        c_in="unit-line",
        draw=part("draw", "logit-normal", mean=0.8, std=0.8),
        weighting=part("weighting", "flow", least=0.05),
        train=Train(
            images=200 * IMAGENET,
            batch=batch,
            optimizer=part("optimizer", "adamw", lr=2e-4, beta2=0.95, weight_decay=0.0),
            rate=part("rate", "constant", warmup=5.0 * IMAGENET),
            precision="bf16",
        ),
        ema=decaying(batch, 0.9999),
        sample=Sample(
            part("sampler", "heun", gauge="flow"), part("grid", "flow", steps=50), guidance=2.9, interval=(0.0, 9.0)
        ),
        evaluate=FID_50K,
        shape=square(256, 1000),
    )
