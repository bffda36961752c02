"""Thresholding: keep the estimate of x0 inside the range of images.

    static     x0 clipped to [-bound, bound]
    dynamic    with q the given quantile of |x0| over one image and s = max(q, bound):
               x0 clipped to [-s, s], then scaled by bound / s

Static clipping is what DDPM and its successors do at every step. Strong guidance drives whole images out of range,
where clipping saturates them; the dynamic form shrinks them back instead.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020. https://arxiv.org/abs/2006.11239
    Saharia et al. Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding. 2022, section 2.3.
    https://arxiv.org/abs/2205.11487
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sfumato.core.bounds import Inside, Positive
from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, Prediction
from sfumato.core.level import Level


def threshold(denoiser: Denoiser, bound: Positive = 1.0, quantile: Inside | None = None) -> Denoiser:
    """Keep a denoiser's x0 within bounds.

    Arguments:
        denoiser: Denoiser whose estimates are clipped, usually a guided one.
        bound: Largest absolute value, > 0; 1 for images in [-1, 1].
        quantile: In (0, 1) for the dynamic form, e.g. 0.995; None for plain clipping.

    Raises:
        ValueError: If an argument is out of range.
    """
    if not bound > 0 or (quantile is not None and not 0 < quantile < 1):
        raise ValueError(f"threshold needs bound > 0 and quantile in (0, 1); got {bound} and {quantile}.")

    def bounded(x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        prediction = denoiser(x, level, label)
        if quantile is None:
            return replace(prediction, x0=prediction.x0.clamp(-bound, bound))
        flat = prediction.x0.flatten(1)
        s = torch.quantile(flat.abs().to(torch.float32), quantile, dim=1, keepdim=True).clamp(min=bound).to(flat)
        kept = torch.minimum(torch.maximum(flat, -s), s) * (bound / s)
        return replace(prediction, x0=kept.reshape(x.shape))

    return bounded
