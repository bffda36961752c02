"""DDIM: keep the predicted noise, move the level; and its inverse, which encodes an image as noise.

With n = (x_t - alpha_t x0) / sigma_t from the denoiser's x0,

    x_s = alpha_s x0 + sqrt(sigma_s^2 - var) n + std z,    var = eta^2 beta-tilde,  std = sqrt(var)

with beta-tilde the posterior variance of the step (`Kernel.between`). eta = 0 is deterministic, the Euler step of the
probability-flow ODE on a linear gauge; eta = 1 is ancestral sampling with the small variance. The paper's sigma-hat is
eta = 1 with the larger std = sqrt(beta), which the mean does not account for: ancestral sampling with the large one.

A denoiser that learned whole steps (MeanFlow) is told where the step ends: its x0 is then the one for which this step,
eta = 0, lands on the walk however long it is.

References:
    Song, Meng, Ermon. Denoising Diffusion Implicit Models. 2021, eqs. (12), (16) and section 4.3.
    https://arxiv.org/abs/2010.02502
    Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. 2021, appendix F (encoding).
    https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from sfumato.core.bounds import NotNegative
from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, State, clipped
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level, like
from sfumato.core.noise import Noise, drawn
from sfumato.samplers._cfgpp import renoising, shifted

ORDER = 1
JUMPS = True  # it tells a denoiser where its step ends


def ddim(
    denoiser: Denoiser,
    x: Tensor,
    grid: Level,
    *,
    noise: Noise | None = None,
    label: Label | None = None,
    eta: float = 0.0,
    sigma_hat: bool = False,
    fresh: bool = False,
    cfgpp: bool = False,
    clip: bool | NotNegative = False,
    clip_noise: bool = True,
) -> Iterator[State]:
    """Keep the predicted noise and move the level; first order, one call of the denoiser per step.

    Arguments:
        denoiser: The model, any denoiser.
        x: Start at grid[0], shape (B, ...).
        grid: Levels from noisy to clean, shape (N + 1,).
        noise: step -> unit normal noise of x's shape; asked for only if eta > 0.
        label: Class of each image, int64 (B,); None for none.
        eta: Share of the posterior standard deviation that is renewed, in [0, 1].
        sigma_hat: Add noise of variance beta instead of beta-tilde (needs eta = 1).
        fresh: Renew all of the noise instead, x_s = alpha_s x0 + sigma_s z: how consistency models take further steps.
        cfgpp: Keep the noise of the unconditional estimate (CFG++), for guidance weights in [0, 1].
        clip: Clip x0 to [-1, 1] (True) or [-clip, clip].
        clip_noise: Whether the noise that is kept belongs to the clipped x0; False keeps the network's own, as
            diffusers does unless told otherwise.

    Yields:
        The state after every step.

    Raises:
        ValueError: If eta is outside [0, 1], sigma_hat is set without eta = 1, or fresh with any of these or cfgpp.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta lies in [0, 1] (0 deterministic, 1 ancestral); got {eta}.")
    if sigma_hat and eta != 1:
        raise ValueError(f"sigma_hat replaces the noise of eta = 1; got eta = {eta}.")
    if fresh and (eta or sigma_hat or cfgpp):
        raise ValueError(
            "fresh renews all of the noise, so eta = 0, sigma_hat = False and cfgpp = False; got "
            f"{eta}, {sigma_hat} and {cfgpp}."
        )
    for i in range(len(grid) - 1):
        t, s = grid[i], grid[i + 1]
        prediction = denoiser(x, _told(t, s, eta, fresh), label)
        x0 = clipped(prediction.x0, clip)
        if fresh:
            x = s.noisy(x0, drawn(noise, i)) if s.sigma > 0 else x0
            yield State(x, s, x0)
            continue
        k = Kernel.between(s, t)
        var = eta**2 * k.log_var_small.exp()
        left = (s.sigma**2 - var).clamp(min=0).sqrt()
        if cfgpp or not clip_noise:  # the noise is that of another estimate than x0
            bound = clip if clip_noise else False
            kept = renoising(prediction, bound) if cfgpp else prediction.x0
            x = shifted(_move(x, kept, t, s, left), x0, kept, s)
        else:
            x = _move(x, x0, t, s, left)
        if eta > 0 and s.sigma > 0:
            std = (k.log_var_large / 2).exp() if sigma_hat else var.sqrt()
            x = x + like(std, x) * drawn(noise, i)
        yield State(x, s, x0)


def encode(
    denoiser: Denoiser, x: Tensor, grid: Level, *, label: Label | None = None, clip: bool | float = False
) -> Iterator[State]:
    """Run deterministic DDIM backwards, from images to the noise that `ddim` turns back into them.

    A clean image has no noise to keep, so it stands for its own first noisy level: the walk starts at grid[-2]. The
    round trip is exact in the limit of many steps.

    Arguments:
        denoiser: The model, any denoiser.
        x: Clean images, shape (B, ...).
        grid: The grid to sample with, from noisy to clean, shape (N + 1,), N >= 2.
        label: Class of each image, int64 (B,); None for none.
        clip: Clip x0 to [-1, 1] (True) or [-clip, clip].

    Yields:
        N - 1 states, at the levels grid[-3], ..., grid[0].
    """
    for i in range(len(grid) - 2, 0, -1):
        s, t = grid[i], grid[i - 1]
        x0 = clipped(denoiser(x, s, label).x0, clip)
        x = _move(x, x0, s, t, t.sigma)
        yield State(x, t, x0)


def _told(t: Level, s: Level, eta: float, fresh: bool) -> Level:
    """Return the level and where the ODE is followed to: s, the clean image, or, where noise is added, nowhere."""
    return t.towards(Level.clean()) if fresh else t if eta else t.towards(s)


def _move(x: Tensor, x0: Tensor, start: Level, end: Level, kept: Tensor) -> Tensor:
    """Return alpha_end x0 + kept n, with n the noise of x at `start`."""
    per_x = kept / start.sigma
    return like(end.alpha - per_x * start.alpha, x) * x0 + like(per_x, x) * x
