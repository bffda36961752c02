"""Handwritten digits, 8x8: small enough that a laptop trains a diffusion model while you watch."""

from __future__ import annotations

from dataclasses import replace

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


def edm_digits_clusters() -> Recipe:
    """EDM on the digits without their classes: told, guided and drawn by ten clusters of their pixels.

    Paper: Hu et al., Self-Guided Diffusion Models, 2022, and Adaloglou et al., Rethinking Cluster-Conditioned Diffusion
    Models, 2024 (data, features, network, optimiser and budget are ours).
    Command: sfumato train edm-digits-clusters   (needs scikit-learn: pip install 'sfumato[learn]')
    Cost: that of edm-digits; the clusters take about a second.
    """
    base = edm_digits()
    clusters = part("labels", "clusters", count=10)
    return replace(base, name="edm-digits-clusters", data=replace(base.data, labels=clusters))


def finetune_digits() -> Recipe:
    """The digits 5 to 9 learned from 100 images, by a model that knows 0 to 4.

    The parent is edm-digits on the first five classes, told no label one time in ten, so that new classes can begin
    from its row for "no label". The way down stays as it is; rows of the classes move ten times as fast as the rest.

    Command: sfumato train edm-digits data.classes=0,1,2,3,4 objective.label_dropout=0.1 --out runs/digits-0-4
        sfumato train finetune-digits train.start=runs/digits-0-4
    Cost: 6,400 images, after the parent's 40,000.
    Expected: no published score.
    """
    base = edm_digits()
    return replace(
        base,
        name="finetune-digits",
        data=replace(base.data, classes=(5, 6, 7, 8, 9), first=100),
        objective=part("objective", "denoising", label_dropout=0.1),
        train=replace(
            base.train,
            images=6400,
            start="runs/digits-0-4",
            freeze=("down",),
            rate_factors=("label:10",),
            optimizer=part("optimizer", "adam", lr=5e-4),
            rate=part("rate", "linear", warmup=640.0, hold=0.4),
        ),
    )
