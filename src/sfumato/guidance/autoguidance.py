"""Autoguidance: extrapolate from a worse version of the model to the model.

    D_w(x) = D_weak(x) + w (D(x) - D_weak(x))

The weak model makes the same kind of errors, only larger, so the difference points away from them: smaller, trained
for a shorter time, or both, but on the same data and label. Unlike `cfg` it needs no label and does not confuse
sharpness with class. w = 1 is the model itself and costs one forward. Confine it to a range of noise with
`interval`.

References:
    Karras et al. Guiding a Diffusion Model with a Bad Version of Itself. 2024, eq. (3).
    https://arxiv.org/abs/2406.02507
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, Prediction
from sfumato.core.level import Level, like
from sfumato.guidance.interval import interval as switched

EVERYWHERE = (0.0, math.inf)


def autoguidance(
    denoiser: Denoiser, weak: Denoiser, w: float | Tensor = 1.0, interval: tuple[float, float] = EVERYWHERE
) -> Denoiser:
    """Guide a denoiser by a weaker one.

    Arguments:
        denoiser: The stronger model, which is guided.
        weak: A smaller or earlier version of it; it sees the same x, level and label.
        w: Guidance weight, a number or one per image (B,). 1 is none, 0 the weak model.
        interval: Guide only at nsr in [lo, hi] (`guidance.interval`).

    Returns:
        A denoiser. Its learned variance, if any, is the strong one's.
    """
    weight = torch.as_tensor(w, dtype=torch.float64, device="cpu")

    def guided(x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        strong = denoiser(x, level, label)
        if bool((weight == 1).all()):
            return strong
        x0 = torch.lerp(weak(x, level, label).x0, strong.x0, like(weight, x).to(x.device).expand_as(x))
        return replace(strong, x0=x0)

    return guided if interval == EVERYWHERE else switched(guided, denoiser, *interval)
