"""The step kernel q(x_s | x_t, x0) of the forward process, for s cleaner than t.

With ``r = (nsr_s / nsr_t)^2`` the Gaussian q(x_s | x_t, x0) has

    mean = alpha_s (1 - r) x0 + (alpha_t / alpha_s) (sigma_s / sigma_t)^2 x_t
    var  = sigma_s^2 (1 - r)                  "small": beta-tilde, the true posterior variance
    var  = sigma_t^2 (1 - r)                  "large": beta, the variance of q(x_t | x_s)

which is DDPM's eqs. (6)-(7) without assuming a variance-preserving chain or neighbouring steps: any two levels
make a kernel, so respaced sampling and its variational bound need no second derivation. ``1 - r`` is computed as
``-expm1(log_snr_t - log_snr_s)`` so that nothing cancels where SNRs meet.

**Learned variance belongs to the step, not to x0.** A network returns an uninterpreted fraction v in [0, 1]; only a
kernel turns it into ``ln var = v ln var_large + (1 - v) ln var_small`` (iDDPM, eq. 15).

At the last step, s = (1, 0), the posterior variance is zero and its logarithm is not finite. The references then
use the small variance of the step before; that is a fact about a chain, so `Kernel.chain` carries it.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, eqs. (4)-(7). https://arxiv.org/abs/2006.11239
    Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. 2021, eq. (15).
    https://arxiv.org/abs/2102.09672
    Kingma, Salimans, Poole, Ho. Variational Diffusion Models. 2021, appendix A. https://arxiv.org/abs/2107.00630
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core.level import Level, like


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """Hold the coefficients of q(x_s | x_t, x0) = N(x0 * D + xt * x_t, var I), float64, any shape.

    Attributes:
        x0: Coefficient of the clean image.
        xt: Coefficient of the noisy image.
        log_var_small: Log of the true posterior variance (beta-tilde); -inf when s is clean.
        log_var_large: Log of the variance of q(x_t | x_s) (beta).
    """

    x0: Tensor
    xt: Tensor
    log_var_small: Tensor
    log_var_large: Tensor

    @classmethod
    def between(cls, s: Level, t: Level) -> Kernel:
        """Make the kernel of the step from t to s.

        Arguments:
            s: The cleaner level(s); alpha > 0.
            t: The noisier level(s), the same shape; sigma > 0.

        Raises:
            ValueError: If s is not cleaner than t.
        """
        gap = t.log_snr - s.log_snr  # < 0
        if not bool((gap < 0).all()):
            raise ValueError(
                "Kernel.between(s, t) needs s cleaner than t (smaller nsr); "
                f"got nsr_s = {s.nsr.reshape(-1)[:4].tolist()}, nsr_t = {t.nsr.reshape(-1)[:4].tolist()}."
            )
        fresh = -torch.expm1(gap)  # 1 - r
        return cls(
            x0=s.alpha * fresh,
            xt=t.alpha / s.alpha * (s.sigma / t.sigma) ** 2,
            log_var_small=2 * s.sigma.log() + fresh.log(),
            log_var_large=2 * t.sigma.log() + fresh.log(),
        )

    @classmethod
    def chain(cls, grid: Level) -> Kernel:
        """Make the kernels of every step of a grid, the last one usable in the log domain.

        Arguments:
            grid: Levels from noisy to clean, shape (N + 1,), N >= 1.

        Returns:
            Kernels of shape (N,); entry i is the step grid[i] -> grid[i + 1]. Where the last step ends at the clean
            level its `log_var_small` is that of the step before (of its own large variance if N = 1).
        """
        k = cls.between(grid[1:], grid[:-1])
        small = k.log_var_small.clone()
        if torch.isneginf(small[-1]):
            small[-1] = small[-2] if len(small) > 1 else k.log_var_large[-1]
        return cls(k.x0, k.xt, small, k.log_var_large)

    def __getitem__(self, index: object) -> Kernel:
        return Kernel(self.x0[index], self.xt[index], self.log_var_small[index], self.log_var_large[index])  # type: ignore[index]

    def log_var(self, fraction: Tensor) -> Tensor:
        """Interpolate ln var between small (fraction 0) and large (1).

        Arguments:
            fraction: A learned variance, shape (B, C, H, W), for a kernel of shape () or (B,); not clamped.
        """
        return fraction * like(self.log_var_large, fraction) + (1 - fraction) * like(self.log_var_small, fraction)
