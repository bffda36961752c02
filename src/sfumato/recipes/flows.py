"""Flow matching at paper scale on CIFAR-10, unconditional: straight lines between images and noise.

Time runs from 0 (image) to 1 (noise) here, against the papers; nothing depends on it, since the network learns its own
reading of c_noise. The target is n - x0, the loss its plain squared error.

References:
    Lipman et al. Flow Matching for Generative Modeling. 2023. https://arxiv.org/abs/2210.02747
    Tong et al. Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport. 2024.
    https://arxiv.org/abs/2302.00482
    Lipman et al. Flow Matching Guide and Code. 2024. https://arxiv.org/abs/2412.06264
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes._paper import adam, decaying, regression
from sfumato.runs.recipe import Data, Part, Recipe, Sample, Train, part

DOPRI5 = Sample(part("sampler", "adaptive", gauge="flow"), part("grid", "flow", steps=1))


def flow_cifar10() -> Recipe:
    """Flow matching with straight (OT) paths on CIFAR-10.

    Paper: Lipman et al., Flow Matching for Generative Modeling, 2023. Its text leaves the kind of resampling open
    (network.resample=conv has 153,094,915 parameters) and states neither an average nor the scale of its time: 0.9999
    and 1000 t are ours.
    Command: sfumato train flow-cifar10
    Hardware and time: 16.9 EFLOP for 100 million images.
    Expected: FID 6.35 in 142 evaluations (n = 50,000; from memory).
    """
    updates, ramp, batch = 391_000, 45_000, 256
    return _flow(
        "flow-cifar10",
        part("network", "adm", width=256, mult=(1, 2, 2, 2), blocks=2, attention=(16,)),
        Train(
            images=updates * batch,
            batch=batch,
            optimizer=part("optimizer", "adam", lr=5e-4),
            rate=part("rate", "linear", warmup=float(ramp * batch), hold=ramp / updates),
        ),
        c_noise=part("conditioning", "flow-time", scale=1000.0),
    )


def otcfm_cifar10() -> Recipe:
    """OT-CFM on CIFAR-10: images meet the nearest noises of their batch.

    Paper: Tong et al., Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport, 2024.
    Its code feeds t in [0, 1] to sinusoids made for steps, as is done here. Needs SciPy (the extra 'ode').
    Command: sfumato train otcfm-cifar10
    Hardware and time: 1.9 EFLOP for 51 million images.
    Expected: FID 3.5 with dopri5 (n = 50,000, training set).
    """
    network = part(
        "network", "adm", width=128, mult=(1, 2, 2, 2), blocks=2, attention=(16,), heads=4, head_width=0,
        resample="conv", adaptive=False, dropout=0.1,
    )  # fmt: skip
    train = adam(400_000, 128, 2e-4, warmup=5000)
    base = _flow("otcfm-cifar10", network, train, c_noise=part("conditioning", "flow-time"))
    return replace(base, objective=part("objective", "denoising", stratified=False, coupling="ot"))


def flow_cifar10_meta() -> Recipe:
    """Flow matching on CIFAR-10 with EDM's noise: Meta's example of its flow matching library.

    Paper: Lipman et al., Flow Matching Guide and Code, 2024. Levels are drawn as in EDM and scaled onto the straight
    line, t = sigma / (1 + sigma); the score is that of epoch 1800 of 3000. Its flag "nfe 50" makes 99 evaluations.
    Command: sfumato train flow-cifar10-meta
    Hardware and time: 18.2 EFLOP for 150 million images.
    Expected: FID 2.07 (n = 50,000, training set).
    """
    network = part("network", "adm", width=128, mult=(2, 2, 2), blocks=4, attention=(16,), resample="mean", dropout=0.3)
    train = Train(
        images=3000 * 50_000,
        batch=512,
        optimizer=part("optimizer", "adamw", lr=1e-4, beta2=0.95, weight_decay=0.01),
        precision="bf16",
    )
    base = _flow("flow-cifar10-meta", network, train, c_noise=part("conditioning", "flow-time"))
    return replace(
        base,
        c_in="unit-line",
        draw=part("draw", "lognormal", mean=-1.2, std=1.2),
        ema=decaying(512, 0.999),
        sample=Sample(part("sampler", "heun", gauge="flow"), part("grid", "karras", steps=50)),
    )


def _flow(name: str, network: Part, train: Train, c_noise: Part) -> Recipe:
    return replace(
        regression(name),
        data=Data("cifar10", labels=False, flip=True),
        schedule=part("schedule", "flow"),
        target=part("target", "flow"),
        network=network,
        c_noise=c_noise,
        weighting=part("weighting", "flow"),
        train=train,
        ema=decaying(train.batch, 0.9999),
        sample=DOPRI5,
    )
