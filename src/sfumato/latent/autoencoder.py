"""An autoencoder as a value: q(z | x) from an encoder, p(x | z) from a decoder, whatever network stands behind them.

    q(z | x) = N(m(x), diag v(x))        p(x | z) = N(d(z), s^2 I)

Its three terms for an image x of D numbers and a latent of d numbers, in nats, n being the noise of z = m + sqrt(v) n:

    reconstruction   -ln p(x | z)  = D/2 ln(2 pi s^2) + |x - d(z)|^2 / (2 s^2)
    entropy of q     H(q)          = d/2 ln(2 pi e) + 1/2 sum ln v
    KL to N(0, I)    KL(q || N)    = 1/2 sum (m^2 + v - 1 - ln v)

The KL is the cross entropy under N(0, I) less the entropy of q. A learned prior changes the cross entropy alone
(`latent.bound`). An encoder without noise has no density, hence neither of the last two, and bounds nothing.

References:
    Kingma, Welling. Auto-Encoding Variational Bayes. 2014, appendix B. https://arxiv.org/abs/1312.6114
    Tipping, Bishop. Probabilistic Principal Component Analysis. 1999. https://doi.org/10.1111/1467-9868.00196
    Rybkin, Daniilidis, Levine. Simple and Effective VAE Training with Calibrated Decoders. 2021 (a learned s).
    https://arxiv.org/abs/2006.13202
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """Hold q(z | x) of a batch of images.

    Attributes:
        mean: Shape (B, c, h, w).
        log_var: ln of its variances, the same shape; None for an encoder without noise.
    """

    mean: Tensor
    log_var: Tensor | None

    def sample(self, n: Tensor) -> Tensor:
        """Return m + sqrt(v) n for unit normal noise n; the mean for an encoder without noise."""
        return self.mean if self.log_var is None else self.mean + (0.5 * self.log_var).exp() * n

    def entropy(self) -> Tensor:
        """Return H(q) in nats, shape (B,); 0 for an encoder without noise, which has none to speak of."""
        if self.log_var is None:
            return self.mean.new_zeros(len(self.mean))
        return 0.5 * (self.log_var + 1 + LOG_2PI).flatten(1).sum(1)

    def kl(self) -> Tensor:
        """Return KL(q || N(0, I)) in nats, shape (B,); 0 for an encoder without noise."""
        if self.log_var is None:
            return self.mean.new_zeros(len(self.mean))
        # v - 1 - ln v by expm1, which cancels nothing where v is near 1
        return 0.5 * (self.mean.square() + torch.expm1(self.log_var) - self.log_var).flatten(1).sum(1)


class Autoencoder(nn.Module):
    """Make an autoencoder of a network.

    Arguments:
        network: Its `encode(x)` gives means, or means and ln variances along the channels, and says by `noisy` which;
            its `decode(z)` gives images, and `log_scale` is ln s, shape ().
        autocast: dtype in which the network computes; None for the input's own.
    """

    def __init__(self, network: nn.Module, *, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.network, self.autocast = network, autocast

    def encode(self, x: Tensor) -> Posterior:
        """Return q(z | x) of images (B, C, H, W)."""
        moments = self._ask(self.network.encode, x)  # type: ignore[arg-type]
        if not self.network.noisy:
            return Posterior(moments, None)
        mean, log_var = moments.chunk(2, dim=1)
        return Posterior(mean, log_var)

    def decode(self, z: Tensor) -> Tensor:
        """Return the mean of p(x | z) of latents (B, c, h, w), not clipped."""
        return self._ask(self.network.decode, z)  # type: ignore[arg-type]

    @property
    def log_scale(self) -> Tensor:
        """ln s of p(x | z), shape ()."""
        return self.network.log_scale  # type: ignore[return-value]

    def reconstruction(self, x: Tensor, z: Tensor) -> Tensor:
        """Return -ln p(x | z) in nats, shape (B,): the density of images whose codes are taken as numbers."""
        log_s = self.log_scale.to(x)
        error = (x - self.decode(z)).square().flatten(1).sum(1)
        return x[0].numel() * (log_s + 0.5 * LOG_2PI) + 0.5 * error * (-2 * log_s).exp()

    def forward(self, x: Tensor) -> Tensor:
        """Return images decoded from the means of their posteriors."""
        return self.decode(self.encode(x).mean)

    def _ask(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            return part(x).to(x.dtype)
