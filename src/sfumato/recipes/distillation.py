"""Progressive distillation at paper scale on CIFAR-10: the teacher, whose steps students then halve.

References:
    Salimans, Ho. Progressive Distillation for Fast Sampling of Diffusion Models. 2022. https://arxiv.org/abs/2202.00512
"""

from __future__ import annotations

from sfumato.recipes._paper import FID_50K, cifar10, decaying
from sfumato.training.recipe import Data, Recipe, Sample, Train, part


def progressive_teacher_cifar10() -> Recipe:
    """Progressive distillation's teacher on CIFAR-10: x0 prediction, truncated-SNR weight, cosine time.

    Paper: Salimans and Ho, Progressive Distillation for Fast Sampling of Diffusion Models, 2022. The number of updates
    of the teacher is not stated; 800,000 is an assumption.
    Command: sfumato train progressive-teacher-cifar10
    Hardware and time: 11.0 EFLOP for 102 million images.
    Expected: no published score of the teacher alone; its students in 8/4/2/1 steps 2.57/3.00/4.51/9.12 (n = 50,000).
    Measured here: not measured here.
    """
    return Recipe(
        name="progressive-teacher-cifar10",
        data=Data("cifar10", labels=False, flip=True),
        schedule=part("schedules", "trig", log_snr_min=-20.0, log_snr_max=20.0),
        target=part("core.target", "x0"),
        network=part(
            "networks", "adm", width=256, mult=(1, 1, 1), blocks=3, attention=(16, 8), heads=1, head_width=0,
            sin_first=True, endpoint=True, dropout=0.2,
        ),
        c_noise=part("conditioning", "angle", scale=1000.0),
        c_in="one",
        draw=part("draws", "uniform"),
        weighting=part("weightings", "snr", floor=1.0),
        objective=part("objectives", "denoising", stratified=False),
        train=Train(
            images=800_000 * 128,
            batch=128,
            optimizer=part("training.optim", "adamw", lr=2e-4, weight_decay=0.001),
            rate=part("training.rates", "constant", warmup=1000.0 * 128),
            clip=1.0,
        ),
        ema=decaying(128, 0.9999),
        sample=Sample(part("samplers", "ddim", clip=True), part("grids", "uniform", steps=1024)),
        evaluate=FID_50K,
        shape=cifar10(),
    )  # fmt: skip
