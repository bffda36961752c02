"""The variational bound on -log2 P(x0), term by term, in bits per dimension.

Walking a grid from its noisy end to the clean level, the bound is a sum over steps x_t -> x_s,

    -log2 P(x0)  <=  L_T  +  sum over steps of KL(q(x_s | x_t, x0) || p(x_s | x_t))  +  L_0,

    L_T = KL(q(x_T | x0) || N(0, (alpha_T^2 + sigma_T^2) I)),        L_0 = -log2 P(x0 | x_1) of the last step.

Both Gaussians of a step come from one kernel: their means differ by ``k.x0 (x0 - D(x_t))`` only, so an oracle makes
every KL exactly zero, and the same lines serve full, respaced and continuous grids. Where p takes the variance of q,
a step costs ``(snr_s - snr_t) |x0 - D|^2 / 2`` nats.

The variance of p is one of

    small      beta-tilde; at the last step, where it is zero, that of the step before (see `Kernel.chain`)
    large      beta; at the last step the references use the small variance of the step before, and so do we
    learned    between the two, by the fraction v that the denoiser returns (iDDPM, eq. 15)
    diagonal   v is ln var itself
    small-own  small; at the last step its own beta = sigma_t^2. For grids whose steps shrink towards the clean end
               (Karras, uniform log-SNR): there the step before has a variance far below the error of x0-hat

Every image meets its own noise at every step (``noise(step)``, addressed by seed), so that a value does not depend on
the batch, two models are compared on the same noise, and a standard error over images is meaningful.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, eq. (5). https://arxiv.org/abs/2006.11239
    Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. 2021, eqs. (4)-(7), (15).
    https://arxiv.org/abs/2102.09672
    Kingma, Salimans, Poole, Ho. Variational Diffusion Models. 2021, eqs. (11)-(15). https://arxiv.org/abs/2107.00630
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, Prediction
from sfumato.core.find import nearest
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level, like
from sfumato.likelihood.gaussian import Decoder, discretised, normal_kl

BITS = 1 / math.log(2)  # per nat


def _v(prediction: Prediction) -> Tensor:
    if prediction.v is None:
        raise ValueError(
            "variance 'learned' and 'diagonal' need a denoiser that returns v, and this one returns None. "
            "Use variance='small' or 'large'."
        )
    return prediction.v


def _learned(kernel: Kernel, clean: Tensor, prediction: Prediction) -> Tensor:
    v = _v(prediction)
    return like(kernel.log_var_small, v) + v * like(kernel.log_var_large - kernel.log_var_small, v)


# (kernel, ends clean?, prediction) -> ln var of p, ready to meet an image: shape () or (B, 1, ...) or (B, ...)
VARIANCES: dict[str, Callable[[Kernel, Tensor, Prediction], Tensor]] = {
    "small": lambda k, clean, p: like(k.log_var_small, p.x0),
    "large": lambda k, clean, p: like(torch.where(clean, k.log_var_small, k.log_var_large), p.x0),
    "learned": _learned,
    "diagonal": lambda k, clean, p: _v(p),
    "small-own": lambda k, clean, p: like(torch.where(clean, k.log_var_large, k.log_var_small), p.x0),
}


def check_variance(name: str) -> str:
    """Return the name of a variance, or raise `ValueError` naming the nearest one."""
    if name not in VARIANCES:
        raise ValueError(nearest("variance", name, VARIANCES))
    return name


def term(
    prediction: Prediction,
    x0: Tensor,
    kernel: Kernel,
    clean: Tensor,
    *,
    variance: str = "small",
    decoder: Decoder = discretised,
) -> Tensor:
    """Return one term of the bound per image: the KL of a step, or the decoder's L_0 for steps that end clean.

    It is differentiable in both fields of the prediction; a caller that trains the variance alone (L_hybrid) detaches
    `prediction.x0` first.

    Arguments:
        prediction: The denoiser's answer at x_t; fields of shape (B, ...).
        x0: The clean images, shape (B, ...).
        kernel: Kernels of the steps, from `Kernel.chain(grid)`, shape () or (B,).
        clean: Whether a step ends at the clean level, bool, the kernel's shape.
        variance: A name in `VARIANCES`.
        decoder: Computes L_0, e.g. one of `DECODERS`.

    Returns:
        Bits per dimension, shape (B,), the dtype of `x0`.

    Raises:
        ValueError: For an unknown variance, or one that needs v where the denoiser returns none.
    """
    log_var = VARIANCES[check_variance(variance)](kernel, clean, prediction)
    kl = normal_kl(like(kernel.x0, x0) * (x0 - prediction.x0), like(kernel.log_var_small, x0), log_var)
    bits = kl.flatten(1).mean(1) * BITS
    last = clean.expand(len(x0)).nonzero().flatten().to(x0.device)
    if len(last):
        nll = -decoder(x0[last], prediction.x0[last], log_var.to(x0.device).expand_as(x0)[last])
        bits = bits.index_put((last,), nll.flatten(1).mean(1) * BITS)
    return bits


def prior_bits(x0: Tensor, level: Level) -> Tensor:
    """Return L_T, the KL from q(x_T | x0) to N(0, (alpha^2 + sigma^2) I), in bits/dim, shape (B,), float64.

    Arguments:
        x0: Clean images, shape (B, ...).
        level: The noisiest level of the grid, shape (). On variance-preserving schedules the prior is N(0, I).
    """
    power = (x0.double() ** 2 if x0.device.type != "mps" else x0**2).flatten(1).mean(1).tolist()
    return torch.stack([level.prior_bits(p) for p in power])


class Term(NamedTuple):
    """One step of the bound: its index in the grid, its bits/dim and the mean squared error of x0-hat, (B,) each."""

    step: int
    bits: Tensor
    x0_mse: Tensor


@dataclass(frozen=True, eq=False)
class Bound:
    """Hold the bound of every image, term by term; float64 on the CPU, bits/dim.

    Attributes:
        grid: The levels, noisy to clean, shape (N + 1,).
        terms: Column i is the step grid[i] -> grid[i + 1]; the last column is L_0. Shape (B, N).
        prior: The term L_T of the bound, shape (B,).
        x0_mse: Mean squared error of x0-hat at grid[i], in the units of [-1, 1]. Shape (B, N).
    """

    grid: Level
    terms: Tensor
    prior: Tensor
    x0_mse: Tensor

    @classmethod
    def gather(cls, x0: Tensor, grid: Level, steps: Iterator[Term] | Sequence[Term]) -> Bound:
        """Collect the steps of `vlb` for the same images and grid; wrap `steps` to watch them pass."""
        found = list(steps)
        bits, mse = torch.stack([s.bits for s in found], 1), torch.stack([s.x0_mse for s in found], 1)
        return cls(grid, bits, prior_bits(x0, grid[0]), mse)

    @classmethod
    def join(cls, parts: Sequence[Bound]) -> Bound:
        """Concatenate the bounds of several batches on one grid."""
        pick = [(p.terms, p.prior, p.x0_mse) for p in parts]
        return cls(parts[0].grid, *(torch.cat(column) for column in zip(*pick)))

    @property
    def total(self) -> Tensor:
        """The bound per image, shape (B,)."""
        return self.terms.sum(1) + self.prior

    @property
    def decoder(self) -> Tensor:
        """L_0 per image, shape (B,)."""
        return self.terms[:, -1]

    @property
    def rate(self) -> Tensor:
        """Everything but L_0 per image: the bits/dim sent before the last step, shape (B,)."""
        return self.terms[:, :-1].sum(1) + self.prior


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Return the mean over images and its standard error (nan for one image)."""
    return float(values.mean()), float(values.std(correction=1) / math.sqrt(len(values)))


def vlb(
    denoiser: Denoiser,
    x0: Tensor,
    grid: Level,
    *,
    noise: Callable[[int], Tensor],
    label: Label | None = None,
    variance: str = "small",
    decoder: Decoder = discretised,
    clip: bool = False,
) -> Iterator[Term]:
    """Walk the grid and yield the terms of the variational bound of clean images.

    Arguments:
        denoiser: Asked at every noisy level of the grid.
        x0: Clean images on the 256 codes in [-1, 1], shape (B, C, H, W) (any values with decoder `density`).
        grid: Levels from noisy to clean, shape (N + 1,), ending at (1, 0).
        noise: step -> unit normal noise of x0's shape, e.g. `core.noise.SamplingNoise`; step i is the level grid[i].
        label: int64 (B,), or None.
        variance: Variance of p, a name in `VARIANCES`.
        decoder: Computes L_0, e.g. one of `DECODERS`.
        clip: Clamp x0-hat to [-1, 1] before use, as the references do.

    Yields:
        N terms in grid order; collect them with `Bound.gather`.

    Raises:
        ValueError: If the grid does not end at the clean level, or the variance is unknown or unavailable.
    """
    check_variance(variance)
    if len(grid) < 2 or float(grid.sigma[-1]) != 0:
        raise ValueError(
            f"The bound needs a grid whose last level is clean, (1, 0); got {len(grid)} levels ending at "
            f"({float(grid.alpha[-1]):.6g}, {float(grid.sigma[-1]):.6g}). Append Level.clean()."
        )
    kernels = Kernel.chain(grid)

    def walk() -> Iterator[Term]:
        for i in range(len(grid) - 1):
            with torch.no_grad():
                prediction = denoiser(grid[i].noisy(x0, noise(i)), grid[i], label)
                if clip:
                    prediction = Prediction(prediction.x0.clamp(-1, 1), prediction.v)
                ends_clean = torch.tensor(i == len(grid) - 2)
                bits = term(prediction, x0, kernels[i], ends_clean, variance=variance, decoder=decoder)
                mse = ((x0 - prediction.x0) ** 2).flatten(1).mean(1)
            yield Term(i, bits.to("cpu", torch.float64), mse.to("cpu", torch.float64))

    return walk()  # a generator's own checks would wait for its first step
