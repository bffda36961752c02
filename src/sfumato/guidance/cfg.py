"""Classifier-free guidance: extrapolate from the unconditional to the conditional estimate.

    D_w(x; y) = D(x) + w (D(x; y) - D(x))

w = 1 is the conditional model itself and costs one forward, w = 0 the unconditional one; w > 1 sharpens p(y | x) and
trades variety for fidelity. Ho and Salimans' weight is omega = w - 1. Because D is linear in any of the parameterised
outputs at one x, guiding D, the noise or the velocity is the same. Both branches run as one batch of 2 B.

w may be a number, one per image, or a function of the level and label: guidance confined to an interval of noise,
a schedule (`ramp`), or a weight per class (`by_class`). A weight of 1 on the whole batch always costs one forward.

References:
    Ho, Salimans. Classifier-Free Diffusion Guidance. 2022, eq. (6). https://arxiv.org/abs/2207.12598
    Kynkaanniemi et al. Applying Guidance in a Limited Interval Improves Sample and Distribution Quality. 2024.
    https://arxiv.org/abs/2404.07724
    Wang et al. Analysis of Classifier-Free Guidance Weight Schedulers. 2024. https://arxiv.org/abs/2404.13040
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from sfumato.core.denoiser import NULL, Denoiser, Prediction
from sfumato.core.level import Level, like
from sfumato.guidance._facts import Facts

Weight = float | Tensor | Callable[[Level, Tensor], float | Tensor]
Ramp = Literal["constant", "linear", "cosine"]


def cfg(
    denoiser: Denoiser,
    w: Weight = 1.0,
    interval: tuple[float, float] = (0.0, math.inf),
    each_class: tuple[float, ...] = (),
    over_levels: Ramp = "constant",
    both: bool = False,
) -> Denoiser:
    """Guide a class-conditional denoiser by its own unconditional estimate.

    Arguments:
        denoiser: Trained with label dropout, so that it knows the label NULL.
        w: Guidance weight: a number, one per image (B,), or a function (level, label) -> number or (B,). 1 is none.
        interval: Guide only at nsr in [lo, hi]; elsewhere the weight is 1.
        each_class: One weight per class, in place of w; () for w.
        over_levels: How a number's surplus over 1 is spread over noise levels (`ramp`).
        both: Make both estimates at a weight of 1 too, for a sampler that renoises with the unconditional one.

    Returns:
        A denoiser. Its learned variance, if any, is the conditional one's.

    Raises:
        ValueError: If the interval is not ordered; when called without a label and w is neither 0 nor 1.
    """
    lo, hi = interval
    if not 0 <= lo < hi:
        raise ValueError(f"A guidance interval satisfies 0 <= lo < hi (in nsr); got ({lo}, {hi}).")
    w = w if callable(w) or isinstance(w, Tensor) else weight_of(w, each_class, over_levels)

    def guided(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        if label is None or bool((label == NULL).all()):
            if callable(w) or bool(((torch.as_tensor(w) != 1) & (torch.as_tensor(w) != 0)).any()):
                raise ValueError(
                    "Classifier-free guidance needs a label to guide towards; this call has none (label is None or "
                    "NULL for every image). Give labels, or use w = 1 for an unconditional model."
                )
            return denoiser(x, level, label)
        inside = (level.nsr >= lo) & (level.nsr <= hi)
        weight = torch.where(inside, at(w, level, label), 1.0)
        if bool((weight == 1).all()) and not (both and bool(inside.any())):
            return denoiser(x, level, label)
        null = torch.full_like(label, NULL)
        if bool((weight == 0).all()):
            return denoiser(x, level, null)
        pair = denoiser(torch.cat((x, x)), level.repeated(2), torch.cat((label, null)))
        conditional, unconditional = pair.x0.chunk(2)
        x0 = torch.lerp(unconditional, conditional, like(weight, x).to(x.device).expand_as(x))
        without = torch.where(like(inside, x).bool().to(x.device), unconditional, conditional)
        return Prediction(x0, None if pair.v is None else pair.v.chunk(2)[0], conditional, without)

    return guided


def at(w: Weight, level: Level, label: Tensor) -> Tensor:
    """Return a guidance weight for images of one batch, float64 on the CPU, shape () or (B,).

    Arguments:
        w: Number, one per image, or a function (level, label).
        level: Their levels, shape () or (B,).
        label: Their classes, int64 (B,).
    """
    return torch.as_tensor(w(level, label) if callable(w) else w, dtype=torch.float64, device="cpu")


def check(facts: Facts, options: Mapping[str, Any]) -> None:
    """Refuse a model without labels, or one that has never done without them.

    Arguments:
        facts: What is known of the model.
        options: Options of `cfg` that are set.

    Raises:
        ValueError: With the rule and the remedy.
    """
    if not facts.classes:
        raise ValueError("Guidance needs a class-conditional model; this one has no labels. Use guidance=1.")
    if facts.label_dropout == 0:
        raise ValueError(
            f"sample.guidance={options.get('w', 1.0):g} mixes in the estimate without a label, which a model trained "
            "with objective.label_dropout=0 has never learned. Train with objective.label_dropout=0.1, or use "
            "guidance=1."
        )
    given = len(options.get("each_class", ()))
    if given not in (0, facts.classes):
        raise ValueError(
            f"sample.guidance_by_class has one weight per class, {facts.classes} for this model; got {given}."
        )


def by_class(weights: Sequence[float]) -> Callable[[Level, Tensor], Tensor]:
    """Return a guidance weight that depends on the class of each image.

    Arguments:
        weights: Guidance weight of each class.
    """
    table = torch.tensor([*weights, 1.0], dtype=torch.float64)  # NULL = -1 finds the last entry
    return lambda level, label: table[label.cpu()]


def ramp(level: Level, kind: Ramp) -> Tensor:
    """Return the share of the guidance that is applied at a level: little in the noise, most near the image.

    With t = (2 / pi) atan2(sigma, alpha), 1 for pure noise and 0 for a clean image, it is 2 (1 - t) for "linear" and
    1 + cos(pi t) for "cosine"; the mean over t is 1 for all three.

    Arguments:
        level: Levels of any shape.
        kind: "constant", "linear" or "cosine".

    Raises:
        ValueError: For an unknown kind.

    >>> [round(float(ramp(Level.of(1.0, 1.0), kind)), 6) for kind in ("constant", "linear", "cosine")]
    [1.0, 1.0, 1.0]
    """
    t = 2 / math.pi * torch.atan2(level.sigma, level.alpha)
    shares = {"constant": torch.ones_like(t), "linear": 2 * (1 - t), "cosine": 1 + torch.cos(math.pi * t)}
    if kind not in shares:
        raise ValueError(f"A guidance ramp is one of {', '.join(shares)}; got {kind!r}.")
    return shares[kind]


def weight_of(w: float = 1.0, by_classes: Sequence[float] = (), kind: Ramp = "constant") -> Weight:
    """Return the guidance weight that depends on class and level as asked, 1 + (w - 1) ramp.

    Arguments:
        w: Guidance weight of every class, unless classes have their own.
        by_classes: Guidance weight of each class; () for `w` everywhere.
        kind: Shape of the ramp over noise levels, "constant", "linear" or "cosine".
    """
    if not by_classes and kind == "constant":
        return w
    each = by_class(by_classes) if by_classes else None

    def weight(level: Level, label: Tensor) -> Tensor:
        base = torch.as_tensor(w, dtype=torch.float64) if each is None else each(level, label)
        return 1 + (base - 1) * ramp(level, kind)

    return weight
