"""ADM, "Diffusion Models Beat GANs", at paper scale: the models, and the noisy classifiers that guide them.

AdaGN, attention at 32, 16 and 8, resampling inside residual blocks, a learned variance trained by L_hybrid; the network
sees the raw step. Class-conditional models are trained with labels at all times. A classifier's run guides a model:

    sfumato sample runs/adm-imagenet256 classifier=runs/adm-imagenet256-classifier classifier_scale=1

by the paper's algorithm 1 on ancestral sampling and algorithm 2 on DDIM (and any other sampler). A classifier sees what
the model of its size sees: its chain, its steps, its classes; it is the way down of the U-Net with attention pooling,
and keeps no average of the weights. The paper crops its images at random to 0.8 to 1 of the side, which is not done
here. Half precision was
fp16 with fp32 masters; here it is bf16. ImageNet was reduced by box-halving, then bicubic, then a centre crop; prepare
it so for comparable scores, since the loader's own resize is Lanczos.

Classifier-free guidance was first shown with the same network: one model that knows labels and their absence.

References:
    Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. 2021. https://arxiv.org/abs/2105.05233
    Ho, Salimans. Classifier-Free Diffusion Guidance. 2022. https://arxiv.org/abs/2207.12598
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes._paper import MULT_256, RAW, adam, ancestral, decaying, regression, square
from sfumato.recipes.iddpm import HYBRID
from sfumato.runs.recipe import Data, Part, Recipe, Sample, Train, part

MULT_128, MULT_512 = (1, 1, 2, 3, 4), (0.5, 1, 1, 2, 2, 4, 4)


def adm_imagenet64() -> Recipe:
    """ADM on ImageNet at 64x64, class-conditional.

    Paper: Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021. Without dropout
    (network.dropout=0) FID is 2.61.
    Command: sfumato train adm-imagenet64 data.name=folder:PATH
    Hardware and time: 728 EFLOP for 1,106 million images.
    Expected: FID 2.07, sFID 4.29, precision 0.74, recall 0.63 (n = 50,000, 250 steps).
    """
    base = _imagenet("adm-imagenet64", 64, part("network", "adm", dropout=0.1), 540_000, batch=2048, lr=3e-4)
    return replace(base, schedule=part("schedule", "cosine", steps=1000))


def adm_imagenet128() -> Recipe:
    """ADM on ImageNet at 128x128, class-conditional.

    Paper: Dhariwal and Nichol, 2021.
    Command: sfumato train adm-imagenet128 data.name=folder:PATH
    Hardware and time: 2,060 EFLOP for 1,116 million images.
    Expected: FID 5.91, sFID 5.09, precision 0.70, recall 0.65; guided with scale 0.5: 2.97, 5.09, 0.78, 0.59; guided in
        25 DDIM steps with scale 1.25: 5.98 (n = 50,000, 250 steps else).
    """
    network = part("network", "adm", width=256, mult=MULT_128, blocks=2, heads=4, head_width=0)
    return _imagenet("adm-imagenet128", 128, network, 4_360_000)


def adm_imagenet256() -> Recipe:
    """ADM on ImageNet at 256x256, class-conditional.

    Paper: Dhariwal and Nichol, 2021.
    Command: sfumato train adm-imagenet256 data.name=folder:PATH
    Hardware and time: 3,410 EFLOP for 507 million images.
    Expected: FID 10.94, sFID 6.02, precision 0.69, recall 0.63; guided with scale 1: 4.59, 5.25, 0.82, 0.52; scale 10:
        9.11 (n = 50,000, 250 steps).
    """
    return _imagenet("adm-imagenet256", 256, _network_256(), 1_980_000)


def adm_imagenet256_uncond() -> Recipe:
    """ADM on ImageNet at 256x256, unconditional: what a classifier alone can do.

    Paper: Dhariwal and Nichol, 2021.
    Command: sfumato train adm-imagenet256-uncond data.name=folder:PATH
    Hardware and time: 3,410 EFLOP for 507 million images.
    Expected: guided with scale 1: FID 33.03; scale 10: 12.00 (n = 50,000, 250 steps).
    """
    base = adm_imagenet256()
    return replace(base, name="adm-imagenet256-uncond", data=replace(base.data, labels=False), shape=square(256))


def adm_imagenet512() -> Recipe:
    """ADM on ImageNet at 512x512, class-conditional.

    Paper: Dhariwal and Nichol, 2021.
    Command: sfumato train adm-imagenet512 data.name=folder:PATH
    Hardware and time: 5,910 EFLOP for 497 million images.
    Expected: guided with scale 4: FID 7.72, sFID 6.57, precision 0.87, recall 0.42 (n = 50,000, 250 steps).
    """
    network = part("network", "adm", width=256, mult=MULT_512, blocks=2)
    return _imagenet("adm-imagenet512", 512, network, 1_940_000)


def adm_lsun_bedroom() -> Recipe:
    """ADM on LSUN bedrooms at 256x256, dropout 0.1.

    Paper: Dhariwal and Nichol, 2021. The score is of 1000 steps in sections: sample.grid.spec=90,60,60,20,20 makes 250.
    Command: sfumato train adm-lsun-bedroom data.name=folder:PATH
    Hardware and time: 860 EFLOP for 128 million images.
    Expected: FID 1.90 (1000 steps); 2.02 in 250 steps by sections, 2.31 in 250 uniform ones (n = 50,000).
    """
    return _lsun("bedroom", 500_000)


def adm_lsun_horse() -> Recipe:
    """ADM on LSUN horses at 256x256, dropout 0.1.

    Paper: Dhariwal and Nichol, 2021.
    Command: sfumato train adm-lsun-horse data.name=folder:PATH
    Hardware and time: 430 EFLOP for 64 million images.
    Expected: no score is quoted here.
    """
    return _lsun("horse", 250_000)


def adm_lsun_cat() -> Recipe:
    """ADM on LSUN cats at 256x256, dropout 0.1.

    Paper: Dhariwal and Nichol, 2021.
    Command: sfumato train adm-lsun-cat data.name=folder:PATH
    Hardware and time: 344 EFLOP for 51 million images.
    Expected: no score is quoted here.
    """
    return _lsun("cat", 200_000)


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


def _network_256(dropout: float = 0.0) -> Part:
    return part("network", "adm", width=256, mult=MULT_256, blocks=2, dropout=dropout)


def _imagenet(name: str, size: int, network: Part, updates: int, batch: int = 256, lr: float = 1e-4) -> Recipe:
    return replace(
        regression(name),
        data=Data("folder:imagenet", size=size, test=0.0, flip=True),
        schedule=part("schedule", "linear", steps=1000),
        network=network,
        c_noise=part("conditioning", "index"),
        variance="range",
        objective=HYBRID,
        train=replace(adam(updates, batch, lr), precision="bf16"),
        ema=decaying(batch, 0.9999),
        sample=ancestral("learned", part("grid", "respaced", steps=250)),
        shape=square(size, 1000),
    )


def _lsun(kind: str, updates: int) -> Recipe:
    base = _imagenet(f"adm-lsun-{kind}", 256, _network_256(dropout=0.1), updates)
    data = Data(f"folder:lsun-{kind}", size=256, test=0.0, labels=False, flip=True)
    return replace(base, data=data, sample=ancestral("learned"), shape=square(256))


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


def cfg_imagenet64() -> Recipe:
    """Classifier-free guidance on ImageNet at 64x64: ADM's network, continuous cosine time, label dropped at 10%.

    Paper: Ho and Salimans, Classifier-Free Diffusion Guidance, 2022. Its omega is the weight here less one. The paper
    draws each step with ln var mixed 0.3 towards the large variance; here it is the small one. How the network reads
    its log-SNR is not stated: an angle in 0..1000 is used.
    Command: sfumato train cfg-imagenet64 data.name=folder:PATH; sfumato sample RUN guidance=1.1
    Hardware and time: 539 EFLOP for 819 million images.
    Expected: FID at omega 0/0.1/0.2/0.3/0.5/1/3: 1.80/1.55/2.04/3.03/5.74/12.6/24.8, IS from 54 to 250
        (n = 50,000; with objective.label_dropout=0.2 1.62 at 0.1).
    """
    base = adm_imagenet64()
    return replace(
        base,
        name="cfg-imagenet64",
        schedule=part("schedule", "trig", log_snr_min=-20.0, log_snr_max=20.0),
        c_noise=part("conditioning", "angle", scale=1000.0),
        variance="none",
        objective=part("objective", "denoising", label_dropout=0.1, stratified=False),
        train=replace(base.train, images=400_000 * 2048),
        sample=replace(ancestral("small", part("grid", "uniform", steps=256)), guidance=1.1),
    )
