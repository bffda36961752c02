"""The denoising objective, in F-space.

For a level drawn per image, x = alpha x0 + sigma n and the weighted squared error of the denoiser is

    w(level) |D(x) - x0|^2  =  w c_out^2 |F(x) - (a x0 + b n)|^2

since D - x0 = c_out (F - F*). The right-hand side is what is computed: exact epsilon-MSE for DDPM, EDM's unit-variance
regression, the velocity of flow matching, and no cancellation at either end of the schedule.

Every random number is addressed by the sample's global position, so the loss of sample p does not depend on the batch
it came in (a stratified draw depends on the global batch size, which is part of the recipe).

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, eq. (14). https://arxiv.org/abs/2006.11239
    Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. 2022, eq. (8).
    https://arxiv.org/abs/2206.00364
    Ho, Salimans. Classifier-Free Diffusion Guidance. 2022, algorithm 1. https://arxiv.org/abs/2207.12598
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core import noise
from sfumato.core.denoiser import NULL, Preconditioned, Target, skip_and_out
from sfumato.core.level import Level, like


@dataclass(frozen=True, slots=True, eq=False)
class Loss:
    """One loss per image (B,), differentiable, and the level each was taken at."""

    each: Tensor
    level: Level


def denoising(
    draw: Callable[[Tensor], Level],
    weighting: Callable[[Level, Target], Tensor],
    seed: int,
    batch: int,
    label_dropout: float = 0.1,
    stratified: bool = True,
    reduce: str = "mean",
) -> Callable[[Preconditioned, Tensor, Tensor | None, Tensor], Loss]:
    """Make the weighted denoising loss; it is called with (denoiser, x0, label, positions).

    Arguments:
        draw: Quantile function of the training levels: u (B,) in (0, 1) -> Level (B,).
        weighting: (level, target) -> weight of |D - x0|^2, shape (B,).
        seed: The run's seed.
        batch: Global batch size, for stratification.
        label_dropout: Probability that an image is shown without its label.
        stratified: Spread the batch's levels evenly over the quantiles of the draw.
        reduce: Over pixels: "mean", or "sum" (EDM; it changes the size of the loss, hence Adam's eps and clipping).

    Returns:
        A function of denoiser, x0 (B, C, H, W), label int64 (B,) or None and positions int64 (B,), giving a `Loss`.

    Raises:
        ValueError: If `reduce` or `label_dropout` is out of range.
    """
    if reduce not in ("mean", "sum"):
        raise ValueError(f"reduce must be 'mean' or 'sum'; got {reduce!r}.")
    if not 0 <= label_dropout <= 1:
        raise ValueError(f"label_dropout is a probability in [0, 1]; got {label_dropout}.")

    def loss(denoiser: Preconditioned, x0: Tensor, label: Tensor | None, positions: Tensor) -> Loss:
        u = noise.uniform(positions, seed=seed, purpose="level")
        if stratified:
            u = ((positions % batch).to(u) + u) / batch
        level = draw(u)
        n = noise.normal(positions, x0.shape[1:], seed=seed, purpose="noise", device=x0.device, dtype=x0.dtype)
        if label is not None and label_dropout > 0:
            dropped = noise.uniform(positions, seed=seed, purpose="label-dropout") < label_dropout
            label = torch.where(dropped.to(label.device), NULL, label)
        f, _ = denoiser.raw(level.noisy(x0, n), level, label)
        a, b = denoiser.target(level)
        _, c_out = skip_and_out(denoiser.target, level)
        error = (f - (like(a, x0) * x0 + like(b, x0) * n)).square().flatten(1)
        per_image = error.mean(1) if reduce == "mean" else error.sum(1)
        weight = weighting(level, denoiser.target) * c_out**2
        return Loss(per_image * weight.to(per_image.dtype).to(per_image.device), level)

    return loss
