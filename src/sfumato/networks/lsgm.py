"""An autoencoder and a denoiser of its latents in one network: what LSGM trains together.

    coder   images -> latents -> images           `autoencoder`
    prior   noisy latents, c_noise, label -> F    `unet`, at the latent's side, without patches

Called as network(z, c_noise, label) it is the prior, so it is preconditioned, sampled and guided as any denoiser is;
the autoencoder is its part `coder`. The pair is one module, so it is saved, loaded and averaged together. The prior's
output starts at zero: behind a target whose c_skip is the standard normal's own denoiser, the model starts as a plain
variational autoencoder.

References:
    Vahdat, Kreis, Kautz. Score-based Generative Modeling in Latent Space. 2021. https://arxiv.org/abs/2106.05931
"""

from __future__ import annotations

from torch import Tensor, nn

from sfumato.core.bounds import Depth, Fraction, Positive, Size

from .autoencoder import ConvAutoencoder, autoencoder
from .unet import UNet, unet


class LSGM(nn.Module):
    """A network of two; called as network(z, c_noise, label) it denoises latents.

    Arguments:
        coder: Autoencoder of images.
        prior: The denoiser of its latents.
    """

    def __init__(self, coder: ConvAutoencoder, prior: UNet) -> None:
        super().__init__()
        self.coder, self.prior = coder, prior

    def forward(self, z: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        return self.prior(z, c_noise, label)


def lsgm(
    channels: int = 1,
    classes: int = 0,
    size: int = 28,
    factor: Size = 4,
    latents: Size = 4,
    width: Size = 32,
    mult: tuple[Size, ...] = (1, 2, 2),
    blocks: Depth = 1,
    scale: Positive | None = None,
    prior: Size = 64,
    prior_mult: tuple[Size, ...] = (1, 1),
    prior_blocks: Depth = 2,
    attention: tuple[Depth, ...] = (1,),
    head_width: Size = 32,
    embedding: Size = 256,
    dropout: Fraction = 0.0,
) -> LSGM:
    """LSGM's pair: a convolutional autoencoder with a Gaussian posterior, and our U-Net as the prior of its latents.

    Arguments:
        channels: Number of channels of an image.
        classes: Number of classes that the prior is told, 0 = unlabelled.
        size: Side of the training images in pixels.
        factor, latents, width, mult, blocks, scale: The same as in `autoencoder`.
        prior: Channels of the prior's finest level.
        prior_mult: Channels of each of the prior's levels in units of `prior`, finest first.
        prior_blocks: Residual blocks per level and direction of the prior.
        attention: The prior's levels with attention, 0 = finest.
        head_width: Channels per head.
        embedding: Length of the embedding of noise level and label.
        dropout: Probability inside the prior's blocks, in [0, 1).

    Raises:
        ValueError: For a factor, size or level that does not fit; the nearest valid sizes are named.
    """
    coder = autoencoder(channels, size, factor, latents, width, mult, blocks, True, scale)
    denoiser = unet(
        *(latents, latents, classes, size // factor, prior, prior_mult, prior_blocks, attention),
        head_width=head_width,
        embedding=embedding,
        patch=1,
        dropout=dropout,
    )
    return LSGM(coder, denoiser)
