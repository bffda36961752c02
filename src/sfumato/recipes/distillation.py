"""Few steps at paper scale on CIFAR-10: progressive distillation, teacher and student, and consistency tuning.

Both begin from the weights of a trained run, ``train.start``. A student of N steps is sampled by DDIM at the times
i / N that it was distilled for.

References:
    Salimans, Ho. Progressive Distillation for Fast Sampling of Diffusion Models. 2022. https://arxiv.org/abs/2202.00512
    Geng et al. Consistency Models Made Easy. 2024. https://arxiv.org/abs/2406.14548
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes._paper import RAW, TWO_CALLS, adam, decaying, regression
from sfumato.recipes.edm import edm_cifar10
from sfumato.runs.recipe import Data, Recipe, Sample, part


def progressive_teacher_cifar10() -> Recipe:
    """Progressive distillation's teacher on CIFAR-10: x0 prediction, truncated-SNR weight, cosine time.

    Paper: Salimans and Ho, Progressive Distillation for Fast Sampling of Diffusion Models, 2022. The number of updates
    of the teacher is not stated; 800,000 is an assumption.
    Command: sfumato train progressive-teacher-cifar10
    Hardware and time: 11.0 EFLOP for 102 million images.
    Expected: no published score of the teacher alone; its students in 8/4/2/1 steps 2.57/3.00/4.51/9.12 (n = 50,000).
    """
    return replace(
        regression("progressive-teacher-cifar10"),
        data=Data("cifar10", labels=False, flip=True),
        schedule=part("schedule", "trig", log_snr_min=-20.0, log_snr_max=20.0),
        target=part("target", "x0"),
        network=part(
            "network", "adm", width=256, mult=(1, 1, 1), blocks=3, attention=(16, 8), heads=1, head_width=0,
            sin_first=True, endpoint=True, dropout=0.2,
        ),
        c_noise=part("conditioning", "angle", scale=1000.0),
        weighting=part("weighting", "snr", floor=1.0),
        train=replace(
            adam(800_000, 128, 2e-4, warmup=1000),
            optimizer=part("optimizer", "adamw", lr=2e-4, weight_decay=0.001),
        ),
        ema=decaying(128, 0.9999),
        sample=Sample(part("sampler", "ddim", clip=True), part("grid", "uniform", steps=1024)),
    )  # fmt: skip


def progressive_student_cifar10() -> Recipe:
    """Progressive distillation's student on CIFAR-10: from 8192 steps to 1 in 13 halvings.

    Paper: Salimans and Ho, 2022. Stages are equally long here; the paper doubles the last two.
    Command: sfumato train progressive-student-cifar10 train.start=runs/progressive-teacher-cifar10
    Hardware and time: 14.9 EFLOP for 83 million images, teacher included in each step.
    Expected: FID 2.57/3.00/4.51/9.12 in 8/4/2/1 steps (n = 50,000; from memory). A student of N steps is that of the
        stage that ends there: objective.halvings=10 stops at 8 steps.
    """
    base, halvings = progressive_teacher_cifar10(), 13
    return replace(
        base,
        name="progressive-student-cifar10",
        network=base.network.with_options(dropout=0.0),
        objective=part("objective", "distill", steps=8192, halvings=halvings, stratified=False),
        train=replace(
            base.train,
            images=halvings * 50_000 * 128,
            start="runs/progressive-teacher-cifar10",
            optimizer=part("optimizer", "adam", lr=5e-5),
            rate=part("rate", "stages", count=halvings),
        ),
        ema=RAW,
        sample=Sample(part("sampler", "ddim", clip=True), part("grid", "uniform", steps=1, t_min=0.999)),
    )


def ect_cifar10() -> Recipe:
    """Easy consistency tuning on CIFAR-10, from EDM's unconditional VP network, for one step or two.

    Paper: Geng et al., Consistency Models Made Easy, 2024.
    Command: sfumato train ect-cifar10 train.start=runs/edm-cifar10
    Hardware and time: 4.3 EFLOP for 26 million images.
    Expected: FID 3.86 in one step and 2.15 in two (n = 50,000; 400,000 updates: 3.60 and 2.11).
    """
    base = edm_cifar10()
    return replace(
        base,
        name="ect-cifar10",
        data=replace(base.data, augment=0.0),
        network=base.network.with_options(dropout=0.2),
        draw=part("draw", "lognormal", mean=-1.1, std=2.0),
        objective=part("objective", "consistency", stages=8, q=2.0, stratified=False),
        train=replace(
            base.train,
            images=200_000 * 128,
            batch=128,
            start="runs/edm-cifar10",
            optimizer=part("optimizer", "radam", lr=1e-4),
            rate=part("rate", "constant"),
        ),
        ema=decaying(128, 0.9999),
        sample=TWO_CALLS,
    )
