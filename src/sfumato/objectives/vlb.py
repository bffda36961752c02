"""The variational bound itself, DDPM's eq. (5): one term of a discrete chain per image, in bits per dimension.

    L = L_T + sum over t of KL(q(x_s | x_t, x0) || p(x_s | x_t)) + L_0

has T terms (L_T has nothing to train), so T times a uniformly drawn term is an unbiased estimate of the sum, L_0 the
discretised decoder included. The mean and, where the network predicts it, the variance are trained by the bound; a
fixed variance leaves the mean. Terms differ by orders of magnitude, hence the gradient is noisy: the draw `importance`
visits each t by the root mean square of its recent losses, and the trainer divides by that probability.

With the targets eps, x0 and mu-tilde, and the variances "none", "range" and "diagonal", this is the column "L" of
DDPM's ablation.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, eqs. (3), (5) and Table 2.
    https://arxiv.org/abs/2006.11239
    Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. 2021, sections 3.1 and 3.3.
    https://arxiv.org/abs/2102.09672
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sfumato.core.bounds import Share
from sfumato.core.condition import Label
from sfumato.core.denoiser import Preconditioned, Prediction
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level, index_in
from sfumato.likelihood.gaussian import DECODERS
from sfumato.likelihood.vlb import term
from sfumato.objectives._noising import Loss, Noising

TRAINS = "denoiser"
VARIANCES = {"range": "learned", "diagonal": "diagonal"}  # what a network's head means to the bound
Decode = Literal["erf", "tanh", "density"]


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """The steps of a table, found by the level they start from.

    Attributes:
        table: Levels from clean to noisy, shape (T + 1,).
        kernels: Kernels of the steps table[i] -> table[i - 1], entry i - 1, shape (T,).
    """

    table: Level
    kernels: Kernel

    @classmethod
    def of(cls, table: Level) -> Chain:
        """Make the chain of a table."""
        backwards = torch.arange(len(table) - 1, -1, -1)
        return cls(table, Kernel.chain(table[backwards])[backwards[1:]])

    @property
    def steps(self) -> int:
        """T, the number of terms of the bound."""
        return len(self.table) - 1

    def bits(self, prediction: Prediction, x0: Tensor, level: Level, variance: str, decoder: Decode = "erf") -> Tensor:
        """Return the term of the bound at each level, (B,), in bits per dimension; differentiable in the prediction.

        Arguments:
            prediction: The denoiser's answer at the noisy images, (B, ...).
            x0: Clean images, (B, ...).
            level: Entries of the table, (B,).
            variance: A name of `likelihood.vlb.VARIANCES`.
            decoder: How L_0 is computed; "tanh" is the published codes' approximation of "erf".
        """
        index = index_in(self.table, level)
        clean = index == 1
        return term(prediction, x0, self.kernels[index - 1], clean, variance=variance, decoder=DECODERS[decoder])


def vlb(
    draw: Callable[[Tensor], Level],
    table: Level,
    variance: str,
    seed: int,
    batch: int,
    fixed: Literal["small", "large"] = "small",
    label_dropout: Share = 0.1,
    stratified: bool = True,
    decoder: Decode = "erf",
) -> Callable[..., Loss]:
    """Make the variational bound as a loss: T times the term of a drawn t, in bits per dimension.

    Arguments:
        draw: Quantile function over the table's entries; `uniform` or `importance`.
        table: Levels from clean to noisy, shape (T + 1,).
        variance: The network's head: "none", "range" or "diagonal".
        seed: Seed of the run.
        batch: Global batch size, for stratification.
        fixed: Variance of the steps if the head is "none".
        label_dropout: Probability that an image is shown without its label.
        stratified: Spread the batch's levels evenly over the quantiles of the draw.
        decoder: How L_0 is computed: "erf" (exact), "tanh" (as the published codes) or "density" (continuous data).

    Returns:
        A function of denoiser, x0 (B, C, H, W), label int64 (B,) or None, positions int64 (B,) and augmentation labels
        or None, giving a `Loss`.
    """
    chain, noising = Chain.of(table), Noising(draw, seed, batch, label_dropout, stratified)
    kind = VARIANCES.get(variance, fixed)

    def loss(
        denoiser: Preconditioned, x0: Tensor, label: Label | None, positions: Tensor, augment: Tensor | None = None
    ) -> Loss:
        level = noising.levels(positions)
        x = level.noisy(x0, noising.noise(x0, positions))
        f, v = denoiser.raw(x, level, noising.label(label, positions), augment)
        prediction = Prediction(denoiser.denoised(f, x, level), v)
        return Loss(chain.steps * chain.bits(prediction, x0, level, kind, decoder), level)

    return loss
