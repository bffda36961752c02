"""EDM at paper scale: sigma as time, unit-variance preconditioning, log-normal noise, Heun's sampler.

The networks are DDPM++ (VP) and NCSN++ (VE) of score SDE, and ADM's for ImageNet, all preconditioned alike. The loss is
summed over pixels; the rate ramps up over 10 million images; the half-life of the average is at most 5% of the images
seen. Non-leaky augmentation mirrors images itself, so the data is not flipped. Training was in fp32 without TF32,
ImageNet in fp16 (here bf16).

The path from score SDE to EDM on unconditional CIFAR-10 (its Table 2), VP network, FID in 35 evaluations:

    A 3.01  score SDE as it was             edm-config-a
    B 2.51  batch, rate, ramp, average      edm-config-b
    C 2.31  network: 2,2,2                  edm-config-c
    D 2.29  preconditioning                 edm-config-d
    E 2.05  draw and weight                 edm-config-e
    F 1.97  augmentation                    edm-cifar10

References:
    Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. 2022.
    https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes._paper import FID_50K, cifar10, decaying, exponential, square
from sfumato.recipes.score_sde import NCSN, ddpmpp_cifar10
from sfumato.runs.recipe import Data, Part, Recipe, Sample, Train, part

HEUN_35 = Sample(part("sampler", "heun"), part("grid", "karras", steps=18))
HEUN_79 = Sample(part("sampler", "heun"), part("grid", "karras", steps=40))
MULT_64 = (1, 2, 2, 2)


def edm_cifar10() -> Recipe:
    """EDM on CIFAR-10, unconditional, VP network: configuration F.

    Paper: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022.
    Command: sfumato train edm-cifar10
    Hardware and time: about 2 days on 8 V100; 25.4 EFLOP for 200 million images.
    Expected: FID 1.97 in 35 evaluations (n = 50,000, training set, the least of 3 sets of seeds).
    """
    return _edm("edm-cifar10")


def edm_cifar10_ve() -> Recipe:
    """EDM on CIFAR-10, unconditional, VE network.

    Paper: Karras et al., 2022.
    Command: sfumato train edm-cifar10-ve
    Hardware and time: about 2 days on 8 V100; 25.7 EFLOP for 200 million images.
    Expected: FID 1.98 in 35 evaluations (n = 50,000, training set, the least of 3 sets of seeds).
    """
    return _edm("edm-cifar10-ve", ve=True)


def edm_cifar10_cond() -> Recipe:
    """EDM on CIFAR-10, class-conditional, VP network.

    Paper: Karras et al., 2022.
    Command: sfumato train edm-cifar10-cond
    Hardware and time: about 2 days on 8 V100; 25.4 EFLOP for 200 million images.
    Expected: FID 1.79 in 35 evaluations (n = 50,000, training set, the least of 3 sets of seeds).
    """
    return _labelled(_edm("edm-cifar10-cond"))


def edm_cifar10_cond_ve() -> Recipe:
    """EDM on CIFAR-10, class-conditional, VE network.

    Paper: Karras et al., 2022.
    Command: sfumato train edm-cifar10-cond-ve
    Hardware and time: about 2 days on 8 V100; 25.7 EFLOP for 200 million images.
    Expected: FID 1.79 in 35 evaluations (n = 50,000, training set, the least of 3 sets of seeds).
    """
    return _labelled(_edm("edm-cifar10-cond-ve", ve=True))


def edm_ffhq64() -> Recipe:
    """EDM on FFHQ at 64x64, VP network.

    Paper: Karras et al., 2022.
    Command: sfumato train edm-ffhq64 data.name=folder:PATH
    Hardware and time: 50 EFLOP for 200 million images.
    Expected: FID 2.39 in 79 evaluations (n = 50,000, training set, the least of 3 sets of seeds).
    """
    return _faces("edm-ffhq64", "folder:ffhq", dropout=0.05)


def edm_ffhq64_ve() -> Recipe:
    """EDM on FFHQ at 64x64, VE network.

    Paper: Karras et al., 2022.
    Command: sfumato train edm-ffhq64-ve data.name=folder:PATH
    Hardware and time: 51 EFLOP for 200 million images.
    Expected: FID 2.53 in 79 evaluations (n = 50,000, training set, the least of 3 sets of seeds).
    """
    return _faces("edm-ffhq64-ve", "folder:ffhq", dropout=0.05, ve=True)


def edm_afhqv2() -> Recipe:
    """EDM on AFHQv2 at 64x64, VP network (VE, 2.16: add the options of edm-ffhq64-ve's network).

    Paper: Karras et al., 2022.
    Command: sfumato train edm-afhqv2 data.name=folder:PATH
    Hardware and time: 50 EFLOP for 200 million images.
    Expected: FID 1.96 in 79 evaluations (n = 50,000, training set, the least of 3 sets of seeds).
    """
    return _faces("edm-afhqv2", "folder:afhqv2", dropout=0.25)


def edm_imagenet64() -> Recipe:
    """EDM on ImageNet at 64x64, class-conditional, with ADM's network.

    Paper: Karras et al., 2022.
    Command: sfumato train edm-imagenet64 data.name=folder:PATH
    Hardware and time: 1,650 EFLOP for 2,500 million images.
    Expected: FID 1.36 in 511 stochastic evaluations (n = 50,000, training set, the least of 3 sets of seeds).
    """
    return replace(
        _edm("edm-imagenet64"),
        data=Data("folder:imagenet", size=64, test=0.0),
        network=part("network", "adm", group_width=4, dropout=0.1),
        objective=part("objective", "denoising", label_dropout=0.0, stratified=False, reduce="sum"),
        train=Train(
            images=2_500_000_000,
            batch=4096,
            optimizer=part("optimizer", "adam", lr=1e-4),
            rate=part("rate", "constant", warmup=10e6),
            precision="bf16",
        ),
        ema=exponential(50.0, 0.05),
        sample=Sample(
            part("sampler", "heun", churn=40.0, s_min=0.05, s_max=50.0, s_noise=1.003),
            part("grid", "karras", steps=256),
        ),
        shape=square(64, 1000),
    )


def edm_config_a() -> Recipe:
    """EDM's configuration A: score SDE's VP training as it was, sampled by EDM's sampler.

    Paper: Karras et al., 2022, Table 2 (which settings moved in B is from memory).
    Command: sfumato train edm-config-a
    Hardware and time: 13.0 EFLOP for 200 million images.
    Expected: FID 3.01 in 35 evaluations (n = 50,000, training set).
    """
    base = ddpmpp_cifar10()
    return replace(
        base,
        name="edm-config-a",
        c_in="unit-circle",
        train=replace(base.train, images=200_000_000),
        ema=decaying(128, 0.9999),
        sample=HEUN_35,
    )


def edm_config_b() -> Recipe:
    """EDM's configuration B: larger batch and rate, long ramp, shorter average, no clipping.

    Paper: Karras et al., 2022, Table 2.
    Command: sfumato train edm-config-b
    Hardware and time: 13.0 EFLOP for 200 million images.
    Expected: FID 2.51 in 35 evaluations (n = 50,000, training set).
    """
    return replace(
        edm_config_a(),
        name="edm-config-b",
        network=_songunet(MULT_64, 0.13),
        objective=_SUMMED,
        train=_TRAIN,
        ema=exponential(0.5, 0.05),
    )


def edm_config_c() -> Recipe:
    """EDM's configuration C: capacity moved to the fine levels, 2,2,2 for 1,2,2,2.

    Paper: Karras et al., 2022, Table 2.
    Command: sfumato train edm-config-c
    Hardware and time: 25.4 EFLOP for 200 million images.
    Expected: FID 2.31 in 35 evaluations (n = 50,000, training set).
    """
    return replace(edm_config_b(), name="edm-config-c", network=_songunet((2, 2, 2), 0.13))


def edm_config_d() -> Recipe:
    """EDM's configuration D: EDM's preconditioning with VP's draw and weight.

    Paper: Karras et al., 2022, Table 2.
    Command: sfumato train edm-config-d
    Hardware and time: 25.4 EFLOP for 200 million images.
    Expected: FID 2.29 in 35 evaluations (n = 50,000, training set).
    """
    return replace(
        edm_config_c(),
        name="edm-config-d",
        target=part("target", "edm"),
        c_noise=part("conditioning", "quarter-log-nsr"),
        c_in="unit-variance",
        sigma_data=0.5,
    )


def edm_config_e() -> Recipe:
    """EDM's configuration E: EDM's draw and weight, still with flips in place of augmentation.

    Paper: Karras et al., 2022, Table 2.
    Command: sfumato train edm-config-e
    Hardware and time: 25.4 EFLOP for 200 million images.
    Expected: FID 2.05 in 35 evaluations (n = 50,000, training set).
    """
    base = _edm("edm-config-e")
    return replace(base, data=Data("cifar10", labels=False, flip=True))


_SUMMED = part("objective", "denoising", stratified=False, reduce="sum")
_TRAIN = Train(
    images=200_000_000,
    batch=512,
    optimizer=part("optimizer", "adam", lr=1e-3),
    rate=part("rate", "constant", warmup=10e6),
)


def _songunet(mult: tuple[int, ...], dropout: float, ve: bool = False) -> Part:
    return part("network", "songunet", mult=mult, dropout=dropout, **(NCSN if ve else {}))


def _edm(name: str, ve: bool = False) -> Recipe:
    return Recipe(
        name=name,
        data=Data("cifar10", labels=False, augment=0.12),
        target=part("target", "edm"),
        network=_songunet((2, 2, 2), 0.13, ve),
        c_noise=part("conditioning", "quarter-log-nsr"),
        c_in="unit-variance",
        draw=part("draw", "lognormal", mean=-1.2, std=1.2),
        weighting=part("weighting", "edm"),
        objective=_SUMMED,
        sigma_data=0.5,
        train=_TRAIN,
        ema=exponential(0.5, 0.05),
        sample=HEUN_35,
        evaluate=FID_50K,
        shape=cifar10(),
    )


def _labelled(recipe: Recipe) -> Recipe:
    return replace(
        recipe,
        data=replace(recipe.data, labels=True),
        objective=recipe.objective.with_options(label_dropout=0.0),
        shape=cifar10(labels=True),
    )


def _faces(name: str, data: str, dropout: float, ve: bool = False) -> Recipe:
    optimizer = part("optimizer", "adam", lr=2e-4)
    return replace(
        _edm(name),
        data=Data(data, size=64, test=0.0, labels=False, augment=0.15),
        network=_songunet(MULT_64, dropout, ve),
        train=replace(_TRAIN, batch=256, optimizer=optimizer),
        sample=HEUN_79,
        shape=square(64),
    )
