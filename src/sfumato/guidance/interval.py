"""Interval: use one denoiser at some levels and another at the rest.

Guidance harms at high noise (it destroys variety) and does nothing at low noise; confined to the middle it is better
and cheaper. Any guided denoiser can be confined:

    interval(cfg(d, 3.0), d, lo, hi)          limited-interval classifier-free guidance, as cfg(d, 3.0, (lo, hi))
    interval(autoguidance(d, weak, 2.0), d, lo, hi)
    interval(expert, d, 0.0, 1.0)             an ensemble of experts, one per range of noise

References:
    Kynkaanniemi et al. Applying Guidance in a Limited Interval Improves Sample and Distribution Quality. 2024, eq. (3).
    https://arxiv.org/abs/2404.07724
    Balaji et al. eDiff-I: Text-to-Image Diffusion Models with an Ensemble of Expert Denoisers. 2022.
    https://arxiv.org/abs/2211.01324
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.core.bounds import NoLimit
from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, Prediction
from sfumato.core.level import Level, like


def interval(inside: Denoiser, outside: Denoiser, lo: NoLimit = 0.0, hi: NoLimit = math.inf) -> Denoiser:
    """Use `inside` at levels with nsr in [lo, hi] and `outside` elsewhere; only those needed are called.

    Arguments:
        inside: Denoiser within the interval, e.g. a guided one.
        outside: Denoiser elsewhere, e.g. the same without guidance.
        lo: Smallest nsr, >= 0.
        hi: Largest nsr, >= lo; infinity for no limit.

    Raises:
        ValueError: If the interval is not ordered; when both are needed in one batch and only one learns its variance.
    """
    if not 0 <= lo < hi:
        raise ValueError(f"An interval satisfies 0 <= lo < hi (in nsr); got ({lo}, {hi}).")

    def switched(x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        within = (level.nsr >= lo) & (level.nsr <= hi)
        if bool(within.all()):
            return inside(x, level, label)
        if not bool(within.any()):
            return outside(x, level, label)
        a, b = inside(x, level, label), outside(x, level, label)
        if (a.v is None) != (b.v is None):
            raise ValueError("interval mixes denoisers of which only one learns its variance; give it both or neither.")
        mask = like(within, x).bool().to(x.device)

        def chosen(one: Tensor | None, other: Tensor | None) -> Tensor | None:
            return None if one is None and other is None else torch.where(mask, _or(one, a.x0), _or(other, b.x0))

        return Prediction(
            torch.where(mask, a.x0, b.x0),
            chosen(a.v, b.v),
            chosen(a.conditional, b.conditional),
            chosen(a.unconditional, b.unconditional),
        )

    return switched


def _or(estimate: Tensor | None, x0: Tensor) -> Tensor:
    """Return an estimate of a guided denoiser, or that of one that is not guided."""
    return x0 if estimate is None else estimate
