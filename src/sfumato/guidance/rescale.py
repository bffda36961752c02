"""Rescaling: give a guided estimate the contrast of the conditional one.

Strong guidance raises the standard deviation of an image, which clips its bright and dark parts. With s(.) the standard
deviation over all values of one image, and D_c the estimate with the label that guidance started from,

    x0 = D (phi s(D_c) / s(D) + 1 - phi)

so phi = 1 restores the contrast of the model itself and phi = 0 changes nothing, bit for bit. The paper rescales what
its network predicts, the velocity; here the estimate of x0 is rescaled, which every model has.

References:
    Lin, Liu, Li, Yang. Common Diffusion Noise Schedules and Sample Steps Are Flawed. 2024, section 3.4.
    https://arxiv.org/abs/2305.08891
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sfumato.core.bounds import Share
from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, Prediction
from sfumato.core.level import Level
from sfumato.guidance._facts import Facts


def rescale(denoiser: Denoiser, phi: Share = 0.7) -> Denoiser:
    """Bring the contrast of a guided denoiser's estimates towards that of its conditional ones.

    Arguments:
        denoiser: Denoiser guided by `cfg` or `apg`; where it does not guide, nothing is rescaled.
        phi: Share of the way, in [0, 1]; 0.7 in the paper.

    Raises:
        ValueError: If phi is outside [0, 1].
    """
    if not 0 <= phi <= 1:
        raise ValueError(f"rescale needs phi in [0, 1] (0 leaves the contrast as it is); got {phi}.")

    def rescaled(x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        prediction = denoiser(x, level, label)
        if prediction.conditional is None:
            return prediction
        own = _contrast(prediction.x0)
        ratio = _contrast(prediction.conditional) / torch.where(own > 0, own, 1.0)
        return replace(prediction, x0=prediction.x0 * (1 + phi * (ratio - 1)))

    return rescaled


def _contrast(images: Tensor) -> Tensor:
    """Return the standard deviation over the values of each image, (B, 1, ..., 1)."""
    return images.flatten(1).std(1).reshape(-1, *(1,) * (images.ndim - 1))


def check(facts: Facts, options: Mapping[str, Any]) -> None:
    """Refuse a model that nothing guides by a label before.

    Arguments:
        facts: What is known of the model.
        options: Options of `rescale` that are set.

    Raises:
        ValueError: With the rule and the remedy.
    """
    if not {"cfg", "apg"} & {*facts.before}:
        raise ValueError(
            "rescale restores the contrast that guidance by the label changed, and nothing guides before it. Set "
            "sample.guidance=[cfg,rescale] and sample.guidance.w=2, for example."
        )
