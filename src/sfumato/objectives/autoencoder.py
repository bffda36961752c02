"""The objective of an autoencoder: what a reconstruction costs, and what its latent costs under N(0, I).

    L(x) = -ln p(x | z) + w KL(q(z | x) || N(0, I)),    z = m(x) + sqrt(v(x)) n

in nats per pixel and channel. With w = 1 it is the negative evidence lower bound of a variational autoencoder, each
term in closed form but for the one noise n. A smaller w buys sharper images with a latent that a prior must learn;
w may rise linearly from 0 over the first images, so that the latent is used before it is paid for. An encoder without
noise (network.noisy=false) pays for its reconstruction alone.

The noise is addressed by the sample's position, so the loss of sample p does not depend on its batch.

References:
    Kingma, Welling. Auto-Encoding Variational Bayes. 2014, eq. (10). https://arxiv.org/abs/1312.6114
    Higgins et al. beta-VAE. 2017 (w other than 1). https://openreview.net/forum?id=Sy2fzU9gl
    Sonderby et al. Ladder Variational Autoencoders. 2016, section 3 (warm-up). https://arxiv.org/abs/1602.02282
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sfumato.core.bounds import NotNegative, Whole
from sfumato.latent.autoencoder import Autoencoder
from sfumato.objectives._latent import clean, posterior_noise, weight_of
from sfumato.objectives._noising import Loss

TRAINS = "autoencoder"


def autoencoder(seed: int, kl: NotNegative = 1.0, warmup: Whole = 0) -> Callable[..., Loss]:
    """Make the loss of an autoencoder: reconstruction and the weighted KL of its latent, in nats per number of x.

    Arguments:
        seed: Seed of the run.
        kl: Weight of the KL; 1 for the evidence lower bound.
        warmup: Training images over which the weight rises linearly from 0; 0 for none.

    Returns:
        A function of autoencoder, x0 (B, C, H, W), label (not used), positions int64 (B,) and augmentation labels (not
        used), giving a `Loss` with the parts "reconstruction" and "kl", unweighted.
    """

    def loss(
        model: Autoencoder, x0: Tensor, label: Tensor | None, positions: Tensor, augment: Tensor | None = None
    ) -> Loss:
        posterior, numbers = model.encode(x0), x0[0].numel()
        z = posterior.sample(posterior_noise(posterior.mean, positions, seed))
        rebuilt, divergence = model.reconstruction(x0, z) / numbers, posterior.kl() / numbers
        each = rebuilt + weight_of(kl, warmup, positions, x0) * divergence
        return Loss(each, clean(len(x0)), {"reconstruction": rebuilt.detach(), "kl": divergence.detach()})

    return loss
