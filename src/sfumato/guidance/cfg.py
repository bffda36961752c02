"""Classifier-free guidance: extrapolate from the unconditional to the conditional estimate.

    D_w(x; y) = D(x) + w (D(x; y) - D(x))

w = 1 is the conditional model itself and costs one forward, w = 0 the unconditional one; w > 1 sharpens p(y | x) and
trades variety for fidelity. Ho and Salimans' weight is omega = w - 1. Because D is linear in any of the parameterised
outputs at one x, guiding D, the noise or the velocity is the same. Both branches run as one batch of 2 B.

A condition of several parts (`core.condition`) has a weight w_k for each of its parts c_1, c_2, ... (class, numbers,
image), and the differences that one part after the other makes are added up,

    D_w(x; c) = D(x) + sum_k w_k (D(x; c_1 .. c_k) - D(x; c_1 .. c_k-1))

which follows from p(c | x) = p(c_1 | x) p(c_2 | x, c_1) ...; equal weights make it the first equation, at its cost.

w may be a number, one per image, or a function of the level and label: guidance confined to an interval of noise,
a schedule (`ramp`), or a weight per class (`by_class`). A weight of 1 on the whole batch always costs one forward.

References:
    Ho, Salimans. Classifier-Free Diffusion Guidance. 2022, eq. (6). https://arxiv.org/abs/2207.12598
    Kynkaanniemi et al. Applying Guidance in a Limited Interval Improves Sample and Distribution Quality. 2024.
    https://arxiv.org/abs/2404.07724
    Brooks, Holynski, Efros. InstructPix2Pix. 2023, eq. (3), of two parts. https://arxiv.org/abs/2211.09800
    Wang et al. Analysis of Classifier-Free Guidance Weight Schedulers. 2024. https://arxiv.org/abs/2404.13040
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from sfumato.core.condition import PARTS, Label, joined, part_of, told, without
from sfumato.core.denoiser import Denoiser, Prediction
from sfumato.core.level import Level, like
from sfumato.guidance._facts import Facts

Weight = float | Tensor | Callable[[Level, Label], float | Tensor]
Ramp = Literal["constant", "linear", "cosine"]


def cfg(
    denoiser: Denoiser,
    w: Weight = 1.0,
    interval: tuple[float, float] = (0.0, math.inf),
    each_class: tuple[float, ...] = (),
    over_levels: Ramp = "constant",
    both: bool = False,
    vector: float | None = None,
    image: float | None = None,
) -> Denoiser:
    """Guide a conditional denoiser by its own unconditional estimate.

    Arguments:
        denoiser: Trained with label dropout, so that it knows the label NULL.
        w: Guidance weight: a number, one per image (B,), or a function (level, label) -> number or (B,). 1 is none.
        interval: Guide only at nsr in [lo, hi]; elsewhere the weight is 1.
        each_class: One weight per class, in place of w; () for w.
        over_levels: How a number's surplus over 1 is spread over noise levels (`ramp`).
        both: Make both estimates at a weight of 1 too, for a sampler that renoises with the unconditional one.
        vector, image: Weight of that part of a condition alone; None for w.

    Returns:
        A denoiser. Its learned variance, if any, is the conditional one's.

    Raises:
        ValueError: If the interval is not ordered; when called without a label and w is neither 0 nor 1.
    """
    lo, hi = interval
    if not 0 <= lo < hi:
        raise ValueError(f"A guidance interval satisfies 0 <= lo < hi (in nsr); got ({lo}, {hi}).")
    w = w if callable(w) or isinstance(w, Tensor) else weight_of(w, each_class, over_levels)

    own = {"vector": vector, "image": image}

    def guided(x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        if label is None or not (parts := told(label)):
            if callable(w) or bool(((torch.as_tensor(w) != 1) & (torch.as_tensor(w) != 0)).any()):
                raise ValueError(
                    "Classifier-free guidance needs a label to guide towards; this call has none (label is None or "
                    "NULL for every image). Give labels, or use w = 1 for an unconditional model."
                )
            return denoiser(x, level, label)
        inside = (level.nsr >= lo) & (level.nsr <= hi)
        weights, known = _by_part(w, own, level, label, parts)
        weights = [torch.where(inside, weight, 1.0) for weight in weights]
        if all(bool((weight == 1).all()) for weight in weights) and not (both and bool(inside.any())):
            return denoiser(x, level, label)
        null = without(label)
        if all(bool((weight == 0).all()) for weight in weights):
            return denoiser(x, level, null)
        asked = [label, *(without(label, [part for part in PARTS if part not in some]) for some in known), null]
        many = denoiser(torch.cat([x] * len(asked)), level.repeated(len(asked)), joined(asked))
        conditional, *between, unconditional = estimates = many.x0.chunk(len(asked))
        shares = [like(weight, x).to(x.device).expand_as(x) for weight in weights]
        x0 = torch.lerp(unconditional, estimates[-2], shares[-1])
        for share, fewer, more in zip(shares[-2::-1], between[::-1], estimates[-3::-1]):
            x0 = x0 + share * (more - fewer)
        outside = torch.where(like(inside, x).bool().to(x.device), unconditional, conditional)
        return Prediction(x0, None if many.v is None else many.v.chunk(len(asked))[0], conditional, outside)

    return guided


def _by_part(
    w: Weight, own: Mapping[str, float | None], level: Level, label: Label, parts: Sequence[str]
) -> tuple[list[Tensor], list[tuple[str, ...]]]:
    """Return the weights of a condition's parts, the last part first, parts of one weight after another being one.

    Arguments:
        w: Weight of parts without their own.
        own: Weights by part; None for none.
        level, label: Of the images.
        parts: Names of the parts that are told.

    Returns:
        The weights (N), and for N - 1 estimates on the way, from all parts to none, the parts that each is told.
    """
    each = [own.get(part) for part in parts]
    last = [i for i in range(len(parts)) if i + 1 == len(parts) or each[i] != each[i + 1]][::-1]
    weights = [at(w if (alone := each[i]) is None else alone, level, label) for i in last]
    return weights, [tuple(parts[: i + 1]) for i in last[1:]]


def at(w: Weight, level: Level, label: Label) -> Tensor:
    """Return a guidance weight for images of one batch, float64 on the CPU, shape () or (B,).

    Arguments:
        w: Number, one per image, or a function (level, label).
        level: Their levels, shape () or (B,).
        label: Their classes, int64 (B,), or a `Condition`.
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
    own = {part: options[part] for part in PARTS if options.get(part) is not None}
    if lacks := [part for part in own if part not in facts.dropouts]:
        raise ValueError(
            f"guidance.{lacks[0]}={own[lacks[0]]:g} is the weight of a condition's {lacks[0]}, which this model is not "
            f"told. Leave it out."
        )
    if not (facts.classes or facts.dropouts):
        raise ValueError("Guidance needs a class-conditional model; this one has no labels. Use guidance=1.")
    for part, share in facts.dropouts.items():
        if share == 0 and own.get(part, options.get("w", 1.0)) != 1:
            raise ValueError(
                f"Guidance by the {part} of a condition mixes in the estimate without it, which a model trained with "
                f"objective.{part}_dropout=0 has never learned. Train with objective.{part}_dropout=0.1, or set "
                f"guidance.{part}=1."
            )
    if facts.classes and facts.label_dropout == 0:
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


def by_class(weights: Sequence[float]) -> Callable[[Level, Label], Tensor]:
    """Return a guidance weight that depends on the class of each image.

    Arguments:
        weights: Guidance weight of each class.
    """
    table = torch.tensor([*weights, 1.0], dtype=torch.float64)  # NULL = -1 finds the last entry

    def weight(level: Level, label: Label) -> Tensor:
        chosen = part_of(label, "label")
        return table[-1] if chosen is None else table[chosen.cpu()]

    return weight


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

    def weight(level: Level, label: Label) -> Tensor:
        base = torch.as_tensor(w, dtype=torch.float64) if each is None else each(level, label)
        return 1 + (base - 1) * ramp(level, kind)

    return weight
