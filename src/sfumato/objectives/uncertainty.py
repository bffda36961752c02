"""Denoising with a learned weight: EDM2's loss, in which every level tells how uncertain it is.

    |D - x0|^2 w / exp(u(level)) + u(level)      per pixel

is smallest when exp(u) is the mean weighted error at that level. So all levels come to contribute equally, whatever
their weight, and the draw alone decides which are learned; the denoiser itself does not see u. It is a function of the
level with 128 learned numbers: random cosines of c_noise and one magnitude-preserving layer, so that u starts near 0.
It is trained with the network, and belongs to the objective: no sampler needs it.

References:
    Karras et al. Analyzing and Improving the Training Dynamics of Diffusion Models. 2024, eqs. (14)-(22).
    https://arxiv.org/abs/2312.02696
    Kendall, Gal, Cipolla. Multi-Task Learning Using Uncertainty to Weigh Losses. 2018.
    https://arxiv.org/abs/1705.07115
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from sfumato.core.bounds import Share, Size
from sfumato.core.condition import Label
from sfumato.core.denoiser import Preconditioned, Target
from sfumato.core.level import Level
from sfumato.networks.edm2 import Fourier, Layer
from sfumato.objectives._noising import Loss, Noising, Weighting, squared_error

TRAINS = "denoiser"


class Uncertainty(nn.Module):
    """The loss of this file, which owns u; make it with `uncertainty`."""

    def __init__(self, noising: Noising, weighting: Weighting, features: int, summed: bool) -> None:
        super().__init__()
        self.noising, self.weighting, self.summed = noising, weighting, summed
        self.fourier, self.linear = Fourier(features), Layer(features, 1)

    def log_variance(self, c_noise: Tensor) -> Tensor:
        """Return u, the log of the expected weighted error, for c_noise (B,)."""
        return self.linear(self.fourier(c_noise)).flatten()

    def forward(
        self,
        denoiser: Preconditioned,
        x0: Tensor,
        label: Label | None,
        positions: Tensor,
        augment: Tensor | None = None,
    ) -> Loss:
        level, n = self.noising.levels(positions), self.noising.noise(x0, positions)
        f, _ = denoiser.raw(level.noisy(x0, n), level, self.noising.label(label, positions), augment)
        error = squared_error(denoiser, f, x0, n, level, self.weighting, "mean")
        u = self.log_variance(denoiser.c_noise(level).to(x0))
        pixels = x0[0].numel() if self.summed else 1
        return Loss(pixels * (error * (-u).exp() + u), level, {"error": error.detach(), "log_variance": u.detach()})


def uncertainty(
    draw: Callable[[Tensor], Level],
    weighting: Callable[[Level, Target], Tensor],
    seed: int,
    batch: int,
    label_dropout: Share = 0.1,
    stratified: bool = True,
    reduce: Literal["mean", "sum"] = "mean",
    features: Size = 128,
    vector_dropout: Share = 0.1,
    image_dropout: Share = 0.0,
) -> Uncertainty:
    """Make EDM2's denoising loss with a learned log-variance per level.

    Arguments:
        draw: Quantile function of the training levels: u (B,) in (0, 1) -> Level (B,).
        weighting: (level, target) -> weight of |D - x0|^2, shape (B,).
        seed: Seed of the run.
        batch: Global batch size, for stratification.
        label_dropout: Probability that an image is shown without its label.
        vector_dropout: The same for the vector of a condition; as often a random half of its numbers is shown.
        image_dropout: The same for the image of a condition.
        stratified: Spread the batch's levels evenly over the quantiles of the draw.
        reduce: Over pixels: "mean", or "sum" (EDM2).
        features: Number of learned numbers.

    Returns:
        A module called with (denoiser, x0, label, positions, augment); its `Loss` has the parts "error" and
        "log_variance".

    Raises:
        ValueError: If `reduce` or `label_dropout` is out of range.
    """
    if reduce not in ("mean", "sum"):
        raise ValueError(f"reduce must be 'mean' or 'sum'; got {reduce!r}.")
    noising = Noising(
        draw, seed, batch, label_dropout, stratified, vector_dropout=vector_dropout, image_dropout=image_dropout
    )
    return Uncertainty(noising, weighting, features, reduce == "sum")
