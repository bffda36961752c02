"""ADM's classifiers of noisy images at paper scale: the way down of its U-Net, attention pooling, cross-entropy.

They see what the diffusion model of their size sees: its chain, its steps, its classes. The paper also crops at random
to 0.8 to 1 of the side, which is not done here. No average of the weights is kept.

References:
    Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. 2021, section 4.
    https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes._paper import MULT_256, RAW
from sfumato.recipes.adm import MULT_128, MULT_512, adm_imagenet64, adm_imagenet128, adm_imagenet256, adm_imagenet512
from sfumato.runs.recipe import Recipe, Sample, Train, part


def adm_imagenet64_classifier() -> Recipe:
    """ADM's noisy classifier for ImageNet at 64x64.

    Paper: Dhariwal and Nichol, 2021. Guidance scale 1.
    Command: sfumato train adm-imagenet64-classifier data.name=folder:PATH
    Hardware and time: 35 EFLOP for 307 million images.
    Expected: no accuracy is quoted here.
    """
    return _classifier(adm_imagenet64(), (1, 2, 3, 4), 4, 300_000, batch=1024, lr=6e-4, weight_decay=0.2)


def adm_imagenet128_classifier() -> Recipe:
    """ADM's noisy classifier for ImageNet at 128x128.

    Paper: Dhariwal and Nichol, 2021. Guidance scale 0.5; 1.25 with 25 DDIM steps.
    Command: sfumato train adm-imagenet128-classifier data.name=folder:PATH
    Hardware and time: 9.7 EFLOP for 77 million images.
    Expected: no accuracy is quoted here.
    """
    return _classifier(adm_imagenet128(), MULT_128, 2, 300_000)


def adm_imagenet256_classifier() -> Recipe:
    """ADM's noisy classifier for ImageNet at 256x256.

    Paper: Dhariwal and Nichol, 2021. Guidance scale 1; 2.5 with 25 DDIM steps; 10 on the unconditional model.
    Command: sfumato train adm-imagenet256-classifier data.name=folder:PATH
    Hardware and time: 56 EFLOP for 128 million images.
    Expected: no accuracy is quoted here.
    """
    return _classifier(adm_imagenet256(), MULT_256, 2, 500_000)


def adm_imagenet512_classifier() -> Recipe:
    """ADM's noisy classifier for ImageNet at 512x512.

    Paper: Dhariwal and Nichol, 2021. Guidance scale 4; 9 with 25 DDIM steps.
    Command: sfumato train adm-imagenet512-classifier data.name=folder:PATH
    Hardware and time: 87 EFLOP for 128 million images.
    Expected: no accuracy is quoted here.
    """
    return _classifier(adm_imagenet512(), MULT_512, 2, 500_000)


def _classifier(
    model: Recipe,
    mult: tuple[float, ...],
    blocks: int,
    updates: int,
    batch: int = 256,
    lr: float = 3e-4,
    weight_decay: float = 0.05,
) -> Recipe:
    """Return the classifier for a model: its data, chain and steps."""
    return replace(
        model,
        name=f"{model.name}-classifier",
        network=part("network", "adm-classifier", mult=mult, blocks=blocks),
        variance="none",
        objective=part("objective", "classifier", stratified=False),
        train=Train(
            images=updates * batch,
            batch=batch,
            optimizer=part("optimizer", "adamw", lr=lr, weight_decay=weight_decay),
            rate=part("rate", "linear"),
            precision="bf16",
        ),
        ema=RAW,
        sample=Sample(),
    )
