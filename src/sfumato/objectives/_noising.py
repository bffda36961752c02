"""What every objective shares: the noisy example that an image becomes, and the loss it returns.

Every random number is addressed by the sample's global position, so the loss of sample p does not depend on the batch
it came in. Two options look at the batch and say so: a stratified draw divides the quantiles among a global batch,
whose size is part of the recipe, and the coupling "ot" pairs the images and noises of one call.

Coupling decides which noise meets which image. Independent pairs are those of diffusion. Optimal transport permutes
the noises of a batch so that the sum of squared distances |x0 - n|^2 is the least; the marginals stay, and the
straight lines of flow matching cross less. With labels the assignment is made within each class: over the whole batch a
class would draw the noises that lie its way, E[n | class] != 0, while sampling starts every class from E[n] = 0.

References:
    Tong et al. Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport. 2024.
    https://arxiv.org/abs/2302.00482
    Cheng, Schwing. The Curse of Conditions: Analyzing and Improving Optimal Transport for Conditional Flow-Based
    Generation. 2025. https://arxiv.org/abs/2503.10636
    Ho, Salimans. Classifier-Free Diffusion Guidance. 2022, algorithm 1. https://arxiv.org/abs/2207.12598
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from sfumato.core import noise
from sfumato.core.condition import PARTS, Label, dropped, part_of
from sfumato.core.denoiser import Preconditioned, Target, skip_and_out
from sfumato.core.level import Level, like

Draw = Callable[[Tensor], Level]
Weighting = Callable[[Level, Target], Tensor]
Reduce = Literal["mean", "sum", "half-sum"]
Coupling = Literal["independent", "ot"]


@dataclass(frozen=True, slots=True, eq=False)
class Loss:
    """The loss of a batch and its parts.

    Attributes:
        each: One loss per image (B,), differentiable. A draw that is not uniform leaves its weight to the trainer.
        level: The level each was taken at.
        parts: Further numbers per image (B,), logged by noise level: the terms of a sum, an accuracy.
    """

    each: Tensor
    level: Level
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Noising:
    """Turn images into noisy examples: a level per image, its noise, and a label whose parts are sometimes dropped.

    Each part is dropped by itself. Of a vector, besides, as many images are shown a random half of its numbers, so that
    a model learns to be told some and not others.

    Attributes:
        draw: Quantile function of the training levels: u (B,) in (0, 1) -> Level (B,).
        seed: Seed of the run.
        batch: Global batch size, for stratification.
        label_dropout: Probability that an image is shown without its label.
        stratified: Spread the batch's levels evenly over the quantiles of the draw.
        coupling: Which noise meets which image: "independent", or "ot", the nearest assignment within the images of
            a class (of the whole batch without labels).
        vector_dropout, image_dropout: The same as `label_dropout` for the other parts of a `Condition`.

    Raises:
        ValueError: If a dropout is no probability or the coupling is unknown.
    """

    draw: Draw
    seed: int
    batch: int
    label_dropout: float = 0.0
    stratified: bool = True
    coupling: Coupling = "independent"
    vector_dropout: float = 0.0
    image_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("label_dropout", "vector_dropout", "image_dropout"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} is a probability in [0, 1]; got {value}.")
        if self.coupling not in ("independent", "ot"):
            raise ValueError(f"coupling must be 'independent' or 'ot'; got {self.coupling!r}.")

    def levels(self, positions: Tensor) -> Level:
        """Return the training level of each position, shape (B,)."""
        return self.draw(self.quantiles(positions))

    def quantiles(self, positions: Tensor) -> Tensor:
        """Return where in the draw each position lies, u in (0, 1), shape (B,)."""
        u = noise.uniform(positions, seed=self.seed, purpose="level")
        return ((positions % self.batch).to(u) + u) / self.batch if self.stratified else u

    def noise(self, x0: Tensor, positions: Tensor, label: Label | None = None) -> Tensor:
        """Return the noise that each image meets, the shape, dtype and device of `x0`.

        Arguments:
            x0: Images (B, C, H, W).
            positions: Global position of each, int64 (B,).
            label: The class of each before any is dropped, int64 (B,); None without labels. Only a coupling uses it.
        """
        n = noise.normal(positions, x0.shape[1:], seed=self.seed, purpose="noise", device=x0.device, dtype=x0.dtype)
        return n[assign(x0, n, part_of(label, "label"))] if self.coupling == "ot" else n

    def label(self, label: Label | None, positions: Tensor) -> Label | None:
        """Return the labels, with a part's null where it is dropped."""
        if label is None:
            return None
        chances = {part: getattr(self, f"{part}_dropout") for part in PARTS if part_of(label, part) is not None}
        u = {
            part: noise.uniform(positions, seed=self.seed, purpose=f"{part}-dropout")
            for part, chance in chances.items()
            if chance
        }
        where = {part: u[part] < chances[part] for part in u}
        if (vector := part_of(label, "vector")) is not None and "vector" in where:
            coins = noise.uniform(positions, vector.shape[1:], seed=self.seed, purpose="numbers-dropout") < 0.5
            half = u["vector"] >= 1 - chances["vector"]
            where["vector"] = where["vector"][:, None] | (half[:, None] & coins)
        return dropped(label, where)


def assign(x0: Tensor, n: Tensor, label: Tensor | None = None) -> Tensor:
    """Return the permutation of the noises that is nearest to the images in total squared distance.

    Arguments:
        x0: Clean images, (B, ...).
        n: Noises, the same shape.
        label: The class of each image, int64 (B,): noises are exchanged within a class only; None for no classes.

    Returns:
        int64 (B,) on x0's device: image i meets noise n[i-th entry].

    Raises:
        ModuleNotFoundError: Without SciPy (the extra 'ode'), whose exact assignment solver is used.

    >>> assign(torch.tensor([[1.0], [-1.0]]), torch.tensor([[-2.0], [2.0]])).tolist()
    [1, 0]
    """
    from scipy.optimize import linear_sum_assignment  # optional, and only here

    images, noises = x0.detach().flatten(1).float(), n.flatten(1).float()
    chosen = torch.arange(len(x0), device=x0.device)
    group = torch.zeros_like(chosen) if label is None else label.to(x0.device)
    for own in group.unique():
        members = (group == own).nonzero().flatten()
        cost = torch.cdist(images[members], noises[members]).square().cpu().numpy()
        nearest = torch.as_tensor(linear_sum_assignment(cost)[1], dtype=torch.int64, device=x0.device)
        chosen[members] = members[nearest]
    return chosen


def squared_error(
    denoiser: Preconditioned, f: Tensor, x0: Tensor, n: Tensor, level: Level, weighting: Weighting, reduce: Reduce
) -> Tensor:
    """Return w |D - x0|^2 per image, computed as w c_out^2 |F - (a x0 + b n)|^2.

    Arguments:
        denoiser: Model whose target F is compared with.
        f: Raw output of the model at the noisy images, (B, C, H, W).
        x0, n: Images and their noise, the same shape.
        level: Levels of the noisy images, shape (B,).
        weighting: (level, target) -> w of |D - x0|^2, shape (B,).
        reduce: Over pixels: mean, sum or half the sum.

    Returns:
        Shape (B,).
    """
    a, b = denoiser.target(level)
    _, c_out = skip_and_out(denoiser.target, level)
    error = (f - (like(a, x0) * x0 + like(b, x0) * n)).square().flatten(1)
    per_image = error.mean(1) if reduce == "mean" else error.sum(1)
    weight = weighting(level, denoiser.target) * c_out**2 * (0.5 if reduce == "half-sum" else 1.0)
    return per_image * weight.to(per_image.dtype).to(per_image.device)
