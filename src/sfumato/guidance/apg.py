"""Adaptive projected guidance: guide across the conditional estimate more than along it.

With D_c and D_u the estimates with and without the label, classifier-free guidance adds w - 1 times D = D_c - D_u to
D_c. The part of D along D_c makes an image brighter and its colours stronger without changing what it shows, and burns
it at large w. So

    m = D + momentum m                                       over the steps of one walk
    d = m min(1, norm / |m|)                                 norm > 0
    d = d_across + eta d_along,   d_along = <d, D_c> D_c / |D_c|^2
    x0 = D_c + (w - 1) d

per image, with all its values as one vector. A negative momentum holds back what earlier steps have pushed already. It
is computed as `cfg` plus (w - 1) (d - D), so eta = 1 without norm and momentum is `cfg` bit for bit.

References:
    Sadat, Hilliges, Weber. Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion Models. 2024,
    algorithm 1. https://arxiv.org/abs/2410.02416
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sfumato.core.bounds import Positive, Share
from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, Prediction
from sfumato.core.level import Level, like
from sfumato.guidance import cfg as plain
from sfumato.guidance._facts import Facts

AGAIN = 2.0  # a level this much noisier than the last one begins a new walk; a churned step rises by 1.42 at most


class Momentum:
    """Remember the guidance of the earlier steps of a walk, and forget it when a new walk begins.

    A walk begins at a level as noisy as the first of the last walk, or much noisier than the last level, or with
    images of another shape.

    Arguments:
        share: How much of the earlier steps is added, in (-1, 1); 0 remembers nothing.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.first = self.last = math.inf
        self.held: Tensor | None = None

    def __call__(self, difference: Tensor) -> Tensor:
        """Return a step's guidance with what is remembered of the earlier ones, the shape of `difference`."""
        if self.share:
            known = self.held is not None and self.held.shape == difference.shape
            self.held = difference + self.share * self.held if known and self.held is not None else difference
            return self.held
        return difference

    def visit(self, level: Level) -> None:
        """Take note of the level of a call, and forget if it begins a new walk."""
        nsr = float(level.nsr.max())
        if nsr >= self.first or nsr > AGAIN * self.last or self.first == math.inf:
            self.first, self.held = nsr, None
        self.last = nsr


def apg(
    denoiser: Denoiser,
    w: plain.Weight = 1.0,
    interval: tuple[float, float] = (0.0, math.inf),
    each_class: tuple[float, ...] = (),
    over_levels: plain.Ramp = "constant",
    eta: Share = 0.0,
    norm: Positive | None = None,
    momentum: float = 0.0,
    both: bool = False,
) -> Denoiser:
    """Guide a class-conditional denoiser by its own unconditional estimate, projected so that colours do not burn.

    Arguments:
        denoiser: Trained with label dropout, so that it knows the label NULL.
        w, interval, each_class, over_levels, both: The same as in `cfg`.
        eta: Share of the guidance along the conditional estimate that is kept, in [0, 1]; 1 keeps all.
        norm: Largest Euclidean length of an image's guidance, > 0; None for no bound.
        momentum: Share of the earlier steps' guidance that is added, in (-1, 1); -0.5 in the paper, 0 for none.

    Returns:
        A denoiser. With momentum it remembers the walk it is in, so one walk is made at a time.

    Raises:
        ValueError: If an option is out of range.
    """
    if not 0 <= eta <= 1 or not -1 < momentum < 1 or (norm is not None and not norm > 0):
        raise ValueError(
            f"apg needs eta in [0, 1], momentum in (-1, 1) and norm > 0 or none; got {eta}, {momentum} and {norm}."
        )
    w = w if callable(w) or isinstance(w, Tensor) else plain.weight_of(w, each_class, over_levels)
    guided, remembered = plain.cfg(denoiser, w, interval, both=both), Momentum(momentum)

    def projected(x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        remembered.visit(level)
        prediction = guided(x, level, label)
        if label is None or prediction.conditional is None or prediction.unconditional is None:
            return prediction
        difference = prediction.conditional - prediction.unconditional
        step = remembered(difference)
        if norm is not None:
            step = step * (norm / _length(step).clamp(min=norm))
        correction = (step - difference) - (1 - eta) * along(step, prediction.conditional)
        inside = (level.nsr >= interval[0]) & (level.nsr <= interval[1])
        surplus = torch.where(inside, plain.at(w, level, label) - 1, 0.0)
        return replace(prediction, x0=prediction.x0 + like(surplus, x) * correction)

    return projected


def along(a: Tensor, b: Tensor) -> Tensor:
    """Return the part of each image of `a` along the same image of `b`, (B, ...); 0 where b is 0."""
    rows, onto = a.flatten(1), b.flatten(1)
    square = onto.square().sum(1, keepdim=True)
    share = (rows * onto).sum(1, keepdim=True) / torch.where(square > 0, square, 1.0)
    return (share * onto).reshape(a.shape)


def _length(images: Tensor) -> Tensor:
    """Return the Euclidean length of each image, (B, 1, ..., 1)."""
    return images.flatten(1).norm(dim=1).reshape(-1, *(1,) * (images.ndim - 1))


def check(facts: Facts, options: Mapping[str, Any]) -> None:
    """Refuse what `cfg` refuses, and guidance that is applied twice.

    Arguments:
        facts: What is known of the model.
        options: Options of `apg` that are set.

    Raises:
        ValueError: With the rule and the remedy.
    """
    plain.check(facts, options)
    if "cfg" in facts.before:
        raise ValueError(
            "apg guides by the label in the place of cfg, and here it would follow cfg. Set sample.guidance=apg and "
            "sample.guidance.w=2, without cfg."
        )
