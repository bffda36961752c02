"""iDDPM at paper scale: the cosine chain, a learned variance, the hybrid objective and the bound alone.

The variance is a range between the two bounds of a step, so that short chains keep a good likelihood. The network sees
t in units of a thousandth of the chain, t * 1000 / T. Neither warm-up, clipping nor flips.

References:
    Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. 2021. https://arxiv.org/abs/2102.09672
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from sfumato.recipes._paper import MULT_256, adam, ancestral, decaying, regression, square
from sfumato.runs.recipe import Data, Part, Recipe, part

HYBRID = part("objective", "hybrid", label_dropout=0.0, stratified=False, decoder="tanh")


def iddpm_cifar10() -> Recipe:
    """iDDPM on CIFAR-10: cosine chain of 4000 steps, L_hybrid, learned variance.

    Paper: Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021.
    Command: sfumato train iddpm-cifar10; fewer steps without training anew: sfumato sample RUN grid=respaced steps=100
    Hardware and time: 3.2 EFLOP for 64 million images.
    Expected: FID 3.19 (n = 50,000, training set), 3.17 bits/dim.
    """
    return _cifar10("iddpm-cifar10", "range", HYBRID)


def iddpm_cifar10_vlb() -> Recipe:
    """iDDPM on CIFAR-10 trained by the bound itself, t drawn by importance.

    Paper: Nichol and Dhariwal, 2021, section 3.3: t is drawn by the root mean square of its last 10 losses.
    Command: sfumato train iddpm-cifar10-vlb
    Hardware and time: 3.2 EFLOP for 64 million images.
    Expected: FID 11.47 (n = 50,000, training set), 2.94 bits/dim.
    """
    bound = part("objective", "vlb", stratified=False, decoder="tanh")
    importance = part("draw", "importance", history=10, uniform_share=0.001)
    return replace(_cifar10("iddpm-cifar10-vlb", "range", bound), draw=importance)


def iddpm_cifar10_simple() -> Recipe:
    """iDDPM's control on CIFAR-10: cosine chain of 4000 steps, L_simple, fixed large variance.

    Paper: Nichol and Dhariwal, 2021, Table 2.
    Command: sfumato train iddpm-cifar10-simple
    Hardware and time: 3.2 EFLOP for 64 million images.
    Expected: FID 3.05 (n = 50,000, training set), 3.26 bits/dim.
    """
    return _cifar10("iddpm-cifar10-simple", "none", part("objective", "denoising", stratified=False))


def iddpm_cifar10_linear() -> Recipe:
    """iDDPM on CIFAR-10 with the linear chain of 4000 steps, L_hybrid (dropout 0.1, from memory).

    Paper: Nichol and Dhariwal, 2021, Table 2.
    Command: sfumato train iddpm-cifar10-linear
    Hardware and time: 3.2 EFLOP for 64 million images.
    Expected: FID 3.07 (n = 50,000, training set), 3.26 bits/dim.
    """
    base = _cifar10("iddpm-cifar10-linear", "range", HYBRID, dropout=0.1)
    return replace(base, schedule=part("schedule", "linear", steps=4000))


def iddpm_imagenet64() -> Recipe:
    """iDDPM on ImageNet at 64x64, unconditional: cosine chain of 4000 steps, L_hybrid.

    Paper: Nichol and Dhariwal, 2021. The long run of the paper is train.images=192_000_000.
    Command: sfumato train iddpm-imagenet64 data.name=folder:PATH
    Hardware and time: 6.1 EFLOP for 26 million images (45.7 for the long run).
    Expected: no score is quoted here.
    """
    base = _cifar10("iddpm-imagenet64", "range", HYBRID, dropout=0.0)
    return replace(
        base,
        data=Data("folder:imagenet", size=64, test=0.0, labels=False),
        network=_network(mult=(1, 2, 3, 4), dropout=0.0),
        train=replace(base.train, images=200_000 * 128),
        shape=square(64),
    )


def iddpm_imagenet64_cond() -> Recipe:
    """iDDPM on ImageNet at 64x64, class-conditional, width 192.

    Paper: Nichol and Dhariwal, 2021, section 6. Here the bound's term is not scaled by T / 1000, and t is not rescaled.
    Command: sfumato train iddpm-imagenet64-cond data.name=folder:PATH
    Hardware and time: 274 EFLOP for 512 million images.
    Expected: no score is quoted here.
    """
    base = iddpm_imagenet64()
    return replace(
        base,
        name="iddpm-imagenet64-cond",
        data=replace(base.data, labels=True),
        network=_network(width=192, mult=(1, 2, 3, 4), dropout=0.0),
        c_noise=part("conditioning", "index"),
        objective=HYBRID.with_options(bound=1 / 4000),
        train=adam(250_000, 2048, 3e-4),
        ema=decaying(2048, 0.9999),
        sample=ancestral("learned", part("grid", "respaced", steps=250)),
        shape=square(64, 1000),
    )


def iddpm_lsun_bedroom() -> Recipe:
    """iDDPM on LSUN bedrooms at 256x256: linear chain of 1000 steps, L_hybrid.

    Paper: Nichol and Dhariwal, 2021. A second published run uses rate 2e-5 and 2.4 million updates.
    Command: sfumato train iddpm-lsun-bedroom data.name=folder:PATH
    Hardware and time: 229 EFLOP for 154 million images.
    Expected: no score is quoted here.
    """
    base = _cifar10("iddpm-lsun-bedroom", "range", HYBRID)
    return replace(
        base,
        data=Data("folder:lsun-bedroom", size=256, test=0.0, labels=False),
        schedule=part("schedule", "linear", steps=1000),
        network=_network(mult=MULT_256, blocks=2, attention=(16,), heads=1, adaptive=False, dropout=0.0),
        c_noise=part("conditioning", "index"),
        train=replace(base.train, images=1_200_000 * 128),
        shape=square(256),
    )


def _network(**options: object) -> Part:
    """Return iDDPM's U-Net: ADM's with resampling convolutions and heads by count, 32x32 unless told otherwise."""
    common: dict[str, object] = {"width": 128, "mult": (1, 2, 2, 2), "blocks": 3, "attention": (16, 8), "dropout": 0.3}
    return part("network", "adm", **{**common, "heads": 4, "head_width": 0, "resample": "conv", **options})


def _cifar10(name: str, variance: Literal["none", "range"], objective: Part, dropout: float = 0.3) -> Recipe:
    return replace(
        regression(name),
        schedule=part("schedule", "cosine", steps=4000),
        network=_network(dropout=dropout),
        c_noise=part("conditioning", "index", scale=1000 / 4000),
        variance=variance,
        objective=objective,
        train=adam(500_000, 128, 1e-4),
        ema=decaying(128, 0.9999),
        sample=ancestral("large" if variance == "none" else "learned"),
    )
