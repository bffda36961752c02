"""Handwritten digits, 8x8: small enough that a laptop trains a diffusion model while you watch."""

from __future__ import annotations

from sfumato.runs.recipe import Data, Ema, Evaluate, Recipe, Sample, Train, part


def edm_digits() -> Recipe:
    """EDM on the UCI digits (8x8), class-conditional: the demo, a minute of training on two CPU cores.

    Paper: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022 (network, optimiser
    and budget are ours).
    Command: sfumato train edm-digits   (or: sfumato demo)
    Cost: 40,000 images; with evaluation and pictures 73 s on two cores of an AMD EPYC.
    Measured here: FD[digits] 0.13 [-0.25, 0.51], 0.29 [0.07, 0.51] above the floor; n = 1,000 against the 360 test
    digits, one seed, Intel Xeon.
    """
    return Recipe(
        name="edm-digits",
        data=Data("digits"),
        network=part("network", "unet", width=32, head_width=32, mult=(1, 2), patch=1, attention=(1,), blocks=2),
        target=part("target", "edm"),
        train=Train(
            images=40_000,
            batch=128,
            optimizer=part("optimizer", "muon", lr=0.02, rest_lr=2e-3),
            rate=part("rate", "linear", warmup=3200.0, hold=0.4),
            precision="bf16",
        ),
        ema=Ema(power=(0.05, 0.10, 0.15), use="power-0.10"),
        sample=Sample(sampler=part("sampler", "heun"), grid=part("grid", "karras", steps=18)),
        evaluate=Evaluate(extractor="digits", n=1000),
    )
