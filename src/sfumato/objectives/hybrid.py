"""iDDPM's hybrid objective: learn the variance by the bound without spoiling the images.

    L_hybrid = L_simple + lambda T L_t

where L_t is the term of the variational bound at the drawn t in bits per dimension, and lambda = 0.001. In L_t the
mean is held constant (a stop-gradient), so L_simple alone trains the mean and L_t alone the variance: the gradient of
the bound with respect to the mean's half of the output is exactly zero.

Published code writes the factor as T / 1000 on the sum's estimate; iDDPM's class-conditional ImageNet-64 leaves out
T / 1000, which is ``bound = 1 / T``.

References:
    Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. 2021, eqs. (15)-(16).
    https://arxiv.org/abs/2102.09672
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sfumato.core.bounds import NotNegative, Share
from sfumato.core.condition import Label
from sfumato.core.denoiser import Preconditioned, Prediction, Target
from sfumato.core.level import Level
from sfumato.objectives._noising import Loss, Noising, Weighting, squared_error
from sfumato.objectives.vlb import VARIANCES, Chain, Decode

TRAINS = "denoiser"


def hybrid(
    draw: Callable[[Tensor], Level],
    weighting: Callable[[Level, Target], Tensor],
    table: Level,
    variance: str,
    seed: int,
    batch: int,
    bound: NotNegative = 1e-3,
    label_dropout: Share = 0.1,
    stratified: bool = True,
    decoder: Decode = "erf",
    vector_dropout: Share = 0.1,
    image_dropout: Share = 0.0,
) -> Callable[..., Loss]:
    """Make iDDPM's hybrid loss: squared error of the mean plus the bound of the variance.

    Arguments:
        draw: Quantile function over the table's entries.
        weighting: (level, target) -> weight of the squared error |D - x0|^2; `simple` is iDDPM.
        table: Levels from clean to noisy, shape (T + 1,).
        variance: The network's head: "range" or "diagonal".
        seed: Seed of the run.
        batch: Global batch size, for stratification.
        bound: lambda, the weight of the bound's estimate T L_t (bits per dimension), > 0.
        label_dropout: Probability that an image is shown without its label.
        vector_dropout: The same for the vector of a condition; as often a random half of its numbers is shown.
        image_dropout: The same for the image of a condition.
        stratified: Spread the batch's levels evenly over the quantiles of the draw.
        decoder: How L_0 is computed: "erf" (exact), "tanh" (as the published codes) or "density" (continuous data).

    Returns:
        A function of denoiser, x0 (B, C, H, W), label int64 (B,) or None, positions int64 (B,) and augmentation labels
        or None, giving a `Loss` with the parts "simple" and "bound".

    Raises:
        ValueError: If the variance is not learned, or `bound` is not positive.
    """
    if variance not in VARIANCES:
        raise ValueError(
            f"The hybrid objective trains a learned variance; got variance={variance!r}. Set variance=range, or use "
            "objective=denoising for a fixed variance."
        )
    if not bound > 0:
        raise ValueError(f"bound must be positive; got {bound}. objective=denoising trains without the bound.")
    noising = Noising(
        draw, seed, batch, label_dropout, stratified, vector_dropout=vector_dropout, image_dropout=image_dropout
    )
    chain = Chain.of(table)

    def loss(
        denoiser: Preconditioned, x0: Tensor, label: Label | None, positions: Tensor, augment: Tensor | None = None
    ) -> Loss:
        level, n = noising.levels(positions), noising.noise(x0, positions)
        told = noising.label(label, positions)
        simple, bits = terms(denoiser, x0, n, level, told, augment, weighting, chain, VARIANCES[variance], decoder)
        scaled = bound * chain.steps * bits
        return Loss(simple + scaled, level, {"simple": simple.detach(), "bound": scaled.detach()})

    return loss


def terms(
    denoiser: Preconditioned,
    x0: Tensor,
    n: Tensor,
    level: Level,
    label: Label | None,
    augment: Tensor | None,
    weighting: Weighting,
    chain: Chain,
    variance: str,
    decoder: Decode,
) -> tuple[Tensor, Tensor]:
    """Return (squared error, term of the bound in bits per dimension) per image, (B,) each, from one forward pass.

    Arguments:
        denoiser: Model with a learned variance.
        x0, n: Images and their noise, (B, C, H, W).
        level: Entries of the chain's table, (B,).
        label: int64 (B,) or None.
        augment: Augmentation labels or None.
        weighting: (level, target) -> weight of the squared error.
        chain: Levels and kernels of the table.
        variance: Kind of the learned variance, "learned" or "diagonal".
        decoder: How L_0 is computed: "erf", "tanh" or "density".
    """
    x = level.noisy(x0, n)
    f, v = denoiser.raw(x, level, label, augment)
    held = Prediction(denoiser.denoised(f.detach(), x, level), v)  # the bound must not move the mean
    error = squared_error(denoiser, f, x0, n, level, weighting, "mean")
    return error, chain.bits(held, x0, level, variance, decoder)
