"""DDPM and DDIM at paper scale: the linear chain of 1000 steps, epsilon regression, ancestral sampling.

The network sees the step 0..999; x0 is clipped to [-1, 1] at every sampling step and the last step adds no noise.
CIFAR-10 is sampled with the large variance, images of 256x256 with the small one. The papers draw t uniformly and
independently per image, so nothing is stratified.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020. https://arxiv.org/abs/2006.11239
    Song, Meng, Ermon. Denoising Diffusion Implicit Models. 2021. https://arxiv.org/abs/2010.02502
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes._paper import MULT_256, adam, ancestral, decaying, regression, square
from sfumato.runs.recipe import Data, Recipe, Sample, part


def ddpm_cifar10() -> Recipe:
    """DDPM on CIFAR-10, unconditional: L_simple, the row every other one is measured against.

    Paper: Ho et al., Denoising Diffusion Probabilistic Models, 2020.
    Command: sfumato train ddpm-cifar10; sfumato evaluate runs/ddpm-cifar10 --split train
    Hardware and time: 10.6 hours on a TPUv3-8; 3.8 EFLOP for 102 million images.
    Expected: FID 3.17 against the training set, 5.24 against the test set, IS 9.46 +- 0.11 (n = 50,000);
        at most 3.75 bits/dim.
    """
    return replace(
        regression("ddpm-cifar10"),
        data=Data("cifar10", labels=False, flip=True),
        schedule=part("schedule", "linear", steps=1000),
        network=part("network", "ddpm", dropout=0.1),
        c_noise=part("conditioning", "index"),
        train=adam(800_000, 128, 2e-4, warmup=5000),
        ema=decaying(128, 0.9999),
        sample=ancestral("large"),
    )


def ddpm_celebahq_256() -> Recipe:
    """DDPM on CelebA-HQ at 256x256, unconditional.

    Paper: Ho et al., 2020.
    Command: sfumato train ddpm-celebahq-256 data.name=folder:PATH
    Hardware and time: 48 EFLOP for 32 million images.
    Expected: the paper shows samples and gives no score.
    """
    return _at_256("ddpm-celebahq-256", "folder:celeba-hq", 500_000, flip=True)


def ddpm_lsun_bedroom() -> Recipe:
    """DDPM on LSUN bedrooms at 256x256.

    Paper: Ho et al., 2020. The paper leaves bedrooms unflipped, while its commands flip cats only.
    Command: sfumato train ddpm-lsun-bedroom data.name=folder:PATH
    Hardware and time: 229 EFLOP for 154 million images.
    Expected: FID 6.36 (n = 50,000, by StyleGAN2's code), the minimum over training.
    """
    return _at_256("ddpm-lsun-bedroom", "folder:lsun-bedroom", 2_400_000, flip=False)


def ddpm_lsun_bedroom_large() -> Recipe:
    """DDPM on LSUN bedrooms at 256x256 with the wide network (width 192, solved from the paper's 256M parameters).

    Paper: Ho et al., 2020.
    Command: sfumato train ddpm-lsun-bedroom-large data.name=folder:PATH
    Hardware and time: 247 EFLOP for 74 million images.
    Expected: FID 4.90 (n = 50,000, by StyleGAN2's code), the minimum over training.
    """
    return _at_256("ddpm-lsun-bedroom-large", "folder:lsun-bedroom", 1_150_000, flip=False, width=192)


def ddpm_lsun_church() -> Recipe:
    """DDPM on LSUN churches at 256x256.

    Paper: Ho et al., 2020. Whether churches were flipped differs between the paper (yes) and its commands (no).
    Command: sfumato train ddpm-lsun-church data.name=folder:PATH
    Hardware and time: 115 EFLOP for 77 million images.
    Expected: FID 7.89 (n = 50,000, by StyleGAN2's code), the minimum over training.
    """
    return _at_256("ddpm-lsun-church", "folder:lsun-church", 1_200_000, flip=True)


def ddpm_lsun_cat() -> Recipe:
    """DDPM on LSUN cats at 256x256.

    Paper: Ho et al., 2020.
    Command: sfumato train ddpm-lsun-cat data.name=folder:PATH
    Hardware and time: 172 EFLOP for 115 million images.
    Expected: FID 19.75 (n = 50,000, by StyleGAN2's code), the minimum over training.
    """
    return _at_256("ddpm-lsun-cat", "folder:lsun-cat", 1_800_000, flip=True)


def ddim_cifar10() -> Recipe:
    """DDIM's CIFAR-10 model, sampled in 20 deterministic steps on a quadratic sub-grid.

    Paper: Song et al., Denoising Diffusion Implicit Models, 2021. Its t come in pairs t, T - 1 - t; stratified t, used
    here, serve the same end. The length of training is DDPM's.
    The published quadratic sub-grid of 50 steps visits its last level twice, which a grid here refuses.
    Command: sfumato train ddim-cifar10; other grids without training anew: sfumato sample RUN grid=trailing steps=50
    Hardware and time: 3.8 EFLOP, as ddpm-cifar10.
    Expected: FID in 10/20/50/100/1000 steps 13.36/6.84/4.67/4.16/4.04 (n = 50,000).
    """
    base = ddpm_cifar10()
    return replace(
        base,
        name="ddim-cifar10",
        objective=part("objective", "denoising", stratified=True),
        train=replace(base.train, rate=part("rate", "constant")),
        sample=Sample(part("sampler", "ddim"), part("grid", "quadratic", steps=20)),
    )


def ddim_celeba_64() -> Recipe:
    """DDIM's CelebA model at 64x64, sampled in 50 deterministic steps.

    Paper: Song et al., Denoising Diffusion Implicit Models, 2021. The number of updates is not stated there; 500,000
    is an assumption.
    Command: sfumato train ddim-celeba-64
    Hardware and time: 9.3 EFLOP for 64 million images.
    Expected: no score is quoted here.
    """
    base = ddim_cifar10()
    return replace(
        base,
        name="ddim-celeba-64",
        data=Data("celeba", size=64, labels=False, flip=True),
        network=part("network", "ddpm", mult=(1, 2, 2, 2, 4), dropout=0.1),
        train=replace(base.train, images=500_000 * 128),
        sample=Sample(part("sampler", "ddim"), part("grid", "respaced", spec="ddim50")),
        shape=square(64),
    )


def _at_256(name: str, data: str, updates: int, *, flip: bool, width: int = 128) -> Recipe:
    return replace(
        ddpm_cifar10(),
        name=name,
        data=Data(data, size=256, test=0.0, labels=False, flip=flip),
        network=part("network", "ddpm", width=width, mult=MULT_256, dropout=0.0),
        train=adam(updates, 64, 2e-5, warmup=5000),
        ema=decaying(64, 0.9999),
        sample=ancestral("small"),
        shape=square(256),
    )
