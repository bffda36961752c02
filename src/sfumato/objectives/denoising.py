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
    Tong et al. Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport. 2024,
    algorithm 3 (coupling "ot"). https://arxiv.org/abs/2302.00482
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from torch import Tensor

from sfumato.core.bounds import Share
from sfumato.core.condition import Label
from sfumato.core.denoiser import Preconditioned, Target
from sfumato.core.level import Level
from sfumato.objectives._noising import Coupling, Loss, Noising, Reduce, squared_error

TRAINS = "denoiser"


def denoising(
    draw: Callable[[Tensor], Level],
    weighting: Callable[[Level, Target], Tensor],
    seed: int,
    batch: int,
    label_dropout: Share = 0.1,
    stratified: bool = True,
    reduce: Reduce = "mean",
    coupling: Coupling = "independent",
    vector_dropout: Share = 0.1,
    image_dropout: Share = 0.0,
) -> Callable[..., Loss]:
    """Make the weighted denoising loss; it is called with (denoiser, x0, label, positions).

    Arguments:
        draw: Quantile function of the training levels: u (B,) in (0, 1) -> Level (B,).
        weighting: (level, target) -> weight of |D - x0|^2, shape (B,).
        seed: Seed of the run.
        batch: Global batch size, for stratification.
        label_dropout: Probability that an image is shown without its label.
        vector_dropout: The same for the vector of a condition; as often a random half of its numbers is shown.
        image_dropout: The same for the image of a condition.
        stratified: Spread the batch's levels evenly over the quantiles of the draw.
        reduce: Over pixels: "mean", "sum" (EDM) or "half-sum" (NCSN++); it changes the size of the loss, hence Adam's
            eps and clipping.
        coupling: Which noise meets which image: "independent", or "ot", the nearest assignment within the images of a
            class of the batch (of the whole batch without labels).

    Returns:
        A function of denoiser, x0 (B, C, H, W), label int64 (B,) or None, positions int64 (B,) and augmentation labels
        (B, 9) or None, giving a `Loss`.

    Raises:
        ValueError: If `reduce`, `coupling` or `label_dropout` is out of range.
    """
    if reduce not in get_args(Reduce):
        raise ValueError(f"reduce must be one of {', '.join(get_args(Reduce))}; got {reduce!r}.")
    noising = Noising(draw, seed, batch, label_dropout, stratified, coupling, vector_dropout, image_dropout)

    def loss(
        denoiser: Preconditioned, x0: Tensor, label: Label | None, positions: Tensor, augment: Tensor | None = None
    ) -> Loss:
        level, n = noising.levels(positions), noising.noise(x0, positions, label)
        f, _ = denoiser.raw(level.noisy(x0, n), level, noising.label(label, positions), augment)
        return Loss(squared_error(denoiser, f, x0, n, level, weighting, reduce), level)

    return loss
