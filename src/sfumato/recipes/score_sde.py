"""Score SDE at paper scale on CIFAR-10: DDPM++ on the variance-preserving process, NCSN++ on the exploding one.

The networks divide residual sums by sqrt(2) and resample inside blocks; NCSN++ adds FIR filters, random Fourier
features and a second path for the image. Images lie in [-1, 1] here and in [0, 1] in the original VE code, so sigma is
twice the published one, and c_noise is ln(sigma / 2).

Sampling on VP is ancestral with the large variance, which differs from Euler-Maruyama by the exact integration of each
step; on VE that is the paper's reverse-diffusion predictor, and the Langevin corrector goes before it (signal-to-noise
0.16, one correction per step, 2000 evaluations). The average of the weights warms up
as (1 + n) / (10 + n), a half-life of 0.077 of the images seen.

References:
    Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. 2021.
    https://arxiv.org/abs/2011.13456
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sfumato.recipes._paper import adam, decaying, regression
from sfumato.runs.recipe import Data, Part, Recipe, Sample, part

WARMUP = 0.077
PREDICTOR = part("sampler", "ancestral", variance="large")
CORRECTED = part("sampler", "predictor-corrector", snr=0.16)
NCSN: dict[str, Any] = {"fourier": True, "fourier_scale": 16.0, "taps": (1, 3, 3, 1), "image_path": True}


def ddpmpp_cifar10() -> Recipe:
    """DDPM++ on CIFAR-10, continuous time (VP).

    Paper: Song et al., Score-Based Generative Modeling through SDEs, 2021.
    Command: sfumato train ddpmpp-cifar10
    Hardware and time: 10.8 EFLOP for 166 million images.
    Expected: FID 2.55 (n = 50,000, Euler-Maruyama in 1000 steps).
    """
    return replace(
        regression("ddpmpp-cifar10"),
        data=Data("cifar10", labels=False, flip=True),
        schedule=part("schedule", "vp", beta_min=0.1, beta_max=20.0),
        network=_network(),
        c_noise=part("conditioning", "vp-time", scale=999.0),
        draw=part("draw", "uniform", t_min=1e-5),
        train=adam(1_300_000, 128, 2e-4, warmup=5000),
        ema=decaying(128, 0.9999, WARMUP),
        sample=Sample(PREDICTOR, part("grid", "uniform", steps=1000, t_min=1e-3)),
    )


def ddpmpp_cifar10_deep() -> Recipe:
    """DDPM++ deep (8 blocks per level) on CIFAR-10, continuous time (VP).

    Paper: Song et al., 2021. Its likelihood is that of the probability-flow ODE (`sfumato likelihood`).
    Command: sfumato train ddpmpp-cifar10-deep
    Hardware and time: 13.5 EFLOP for 122 million images.
    Expected: FID 2.41, IS 9.68 (n = 50,000, Euler-Maruyama in 1000 steps); 3.13 bits/dim.
    """
    return _deep(ddpmpp_cifar10(), _network(blocks=8))


def ddpmpp_cifar10_discrete() -> Recipe:
    """DDPM++ on CIFAR-10 with DDPM's chain of 1000 steps.

    Paper: Song et al., 2021.
    Command: sfumato train ddpmpp-cifar10-discrete
    Hardware and time: 10.8 EFLOP for 166 million images.
    Expected: FID 2.78 (n = 50,000, ancestral in 1000 steps).
    """
    return replace(
        ddpmpp_cifar10(),
        name="ddpmpp-cifar10-discrete",
        schedule=part("schedule", "linear", steps=1000),
        c_noise=part("conditioning", "index"),
        draw=part("draw", "uniform"),
        sample=Sample(PREDICTOR, part("grid", "full")),
    )


def ncsnpp_cifar10() -> Recipe:
    """NCSN++ on CIFAR-10, continuous time (VE).

    Paper: Song et al., 2021.
    Command: sfumato train ncsnpp-cifar10
    Hardware and time: 11.0 EFLOP for 166 million images.
    Expected: FID 2.38 with the corrector (n = 50,000, 2000 evaluations).
    """
    return replace(
        ddpmpp_cifar10(),
        name="ncsnpp-cifar10",
        schedule=part("schedule", "ve", sigma_min=0.02, sigma_max=100.0),
        target=part("target", "score"),
        network=_network(**NCSN),
        c_noise=part("conditioning", "log-nsr", factor=0.5),
        draw=part("draw", "uniform"),
        objective=part("objective", "denoising", stratified=False, reduce="half-sum"),
        ema=decaying(128, 0.999, WARMUP),
        sample=Sample(CORRECTED, part("grid", "logsnr", steps=1000, sigma_min=0.02, sigma_max=100.0)),
    )


def ncsnpp_cifar10_deep() -> Recipe:
    """NCSN++ deep (8 blocks per level) on CIFAR-10, continuous time (VE).

    Paper: Song et al., 2021.
    Command: sfumato train ncsnpp-cifar10-deep
    Hardware and time: 13.6 EFLOP for 122 million images.
    Expected: FID 2.20, IS 9.89 with the corrector (n = 50,000, 2000 evaluations).
    """
    return _deep(ncsnpp_cifar10(), _network(blocks=8, **NCSN))


def _network(blocks: int = 4, **options: object) -> Part:
    return part("network", "songunet", mult=(1, 2, 2, 2), blocks=blocks, dropout=0.1, **options)


def _deep(base: Recipe, network: Part) -> Recipe:
    train = replace(base.train, images=950_000 * 128)
    return replace(base, name=f"{base.name}-deep", network=network, train=train)
