"""Ancestral sampling: draw x_s from the model's q(x_s | x_t, x0 = D(x_t)), the sampler of DDPM.

    x_s = k.x0 D(x_t) + k.xt x_t + sqrt(var) z,    k = Kernel.between(s, t), no noise at the last step

The variance of the step is a choice between the two bounds of DDPM section 3.2, or learned:

    small      beta-tilde, exact if x0 is a point                        = DDIM with eta = 1
    large      beta, exact if x0 ~ N(0, I); its last entry is small's
    learned    ln var = v ln beta + (1 - v) ln beta-tilde                iDDPM, eq. (15)
    diagonal   ln var = the network's own output                         DDPM's ablation

A `shift` moves the mean by var times a gradient: classifier guidance, ADM's algorithm 1. Any two levels make a kernel,
so a respaced grid needs nothing else.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, algorithm 2. https://arxiv.org/abs/2006.11239
    Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. 2021. https://arxiv.org/abs/2102.09672
    Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. 2021, algorithm 1.
    https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from torch import Tensor

from sfumato.core.bounds import NotNegative
from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, Prediction, State, clipped
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level, like
from sfumato.core.noise import Noise, drawn

ORDER = 1

Shift = Callable[[Tensor, Level, Label | None], Tensor]


def ancestral(
    denoiser: Denoiser,
    x: Tensor,
    grid: Level,
    *,
    noise: Noise | None = None,
    label: Label | None = None,
    variance: Literal["small", "large", "learned", "diagonal"] = "small",
    clip: bool | NotNegative = False,
    shift: Shift | None = None,
) -> Iterator[State]:
    """Draw each step from the reverse kernel (DDPM); first order, one call of the denoiser per step.

    Arguments:
        denoiser: The model, any denoiser.
        x: Start at grid[0], shape (B, ...).
        grid: Levels from noisy to clean, shape (N + 1,).
        noise: step -> unit normal noise of x's shape; not asked for at the step to the clean level.
        label: Class of each image, int64 (B,); None for none.
        variance: Which variance a step has; "learned" and "diagonal" need a denoiser that predicts it.
        clip: Clip x0 to [-1, 1] (True) or [-clip, clip].
        shift: (x_t, level, label) -> a gradient; the mean moves by variance times it.

    Yields:
        The state after every step.

    Raises:
        ValueError: If the variance is unknown, or learned variance is asked of a denoiser that has none.
    """
    if variance not in ("small", "large", "learned", "diagonal"):
        raise ValueError(f"variance must be 'small', 'large', 'learned' or 'diagonal'; got {variance!r}.")
    chain = Kernel.chain(grid)
    for i in range(len(grid) - 1):
        t, s = grid[i], grid[i + 1]
        prediction = denoiser(x, t, label)
        x0 = clipped(prediction.x0, clip)
        k = chain[i]
        mean = like(k.x0, x) * x0 + like(k.xt, x) * x
        log_var = _log_var(k, s, prediction, x, variance)
        if shift is not None:
            mean = mean + log_var.exp() * shift(x, t, label)
        x = mean + (log_var / 2).exp() * drawn(noise, i) if s.sigma > 0 else mean
        yield State(x, s, x0)


def _log_var(k: Kernel, s: Level, prediction: Prediction, x: Tensor, variance: str) -> Tensor:
    """Return ln var of a step to s, shape () or that of x; -inf where the small variance vanishes."""
    if variance == "small":
        return like(k.log_var_small if s.sigma > 0 else s.sigma.log(), x)
    if variance == "large":
        return like(k.log_var_large if s.sigma > 0 else k.log_var_small, x)
    if prediction.v is None:
        raise ValueError(f"variance={variance!r} needs a denoiser that learns it; this one does not. Use 'small'.")
    return k.log_var(prediction.v) if variance == "learned" else prediction.v
