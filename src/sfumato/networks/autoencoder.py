"""A convolutional autoencoder: images to a grid of latents that is `factor` times smaller on each side, and back.

    x --unshuffle(2), conv--> blocks --halve--> blocks ... --> conv --> m, ln v        (B, c, H/f, W/f)
    d(z) <--shuffle(2), conv-- blocks <--double-- blocks ... <-- conv <-- z

A factor of 2, 4 or 8 is one, two or three halvings. The first is a pixel unshuffle, so no convolution runs at full
resolution; the others are those of `unet`. A block is x + conv(SiLU(GN(conv(SiLU(GN(x)))))), whose last convolution
starts at zero. GroupNorm's statistics are an image's own, so a latent does not depend on the batch.

The decoder's standard deviation is one number, ln s = 10 `tenth`: kept in tenths, Adam's steps move it by some percent
each and it follows the error of reconstruction within a few hundred of them.

References:
    Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. 2022, appendix G.
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core.bounds import Depth, Positive, Size

from ._layers import GroupNorm, check_images, check_size, conv
from .unet import double, halve

FACTORS = (2, 4, 8)
LOG_VARIANCE = -30.0, 20.0  # of a latent: beyond it nothing changes, and its exponential could overflow
SCALE = 0.3  # where a learned standard deviation of the decoder starts


class Block(nn.Module):
    """A residual block without an embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        groups = max(1, min(32, width // 4))
        self.norm1, self.norm2 = GroupNorm(width, groups), GroupNorm(width, groups)
        self.conv1, self.conv2 = conv(width, width), conv(width, width, gain=0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.norm2(self.conv1(self.norm1(x, silu=True)), silu=True))


class ConvAutoencoder(nn.Module):
    """The network of this file; build it with `autoencoder`, which describes the arguments.

    Attributes:
        noisy: Whether `encode` returns ln variances after the means.
        latents: Channels of a latent.
        factor: How many times smaller a side of a latent is.
    """

    def __init__(
        self, channels: int, factor: int, latents: int, widths: tuple[int, ...], blocks: int, noisy: bool, scale: float
    ) -> None:
        super().__init__()
        self.channels, self.factor, self.latents, self.noisy = channels, factor, latents, noisy
        down: list[nn.Module] = [nn.PixelUnshuffle(2), conv(4 * channels, widths[0])]
        up: list[nn.Module] = []
        for i, width in enumerate(widths):
            if i:
                down.append(halve(widths[i - 1], width, "shuffle"))
                up = [double(width, widths[i - 1], "shuffle"), *up]
            down += [Block(width) for _ in range(blocks)]
            up = [*(Block(width) for _ in range(blocks)), *up]
        groups = [max(1, min(32, width // 4)) for width in widths]
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(conv(latents, widths[-1]), *up)
        self.norm_in, self.norm_out = GroupNorm(widths[-1], groups[-1]), GroupNorm(widths[0], groups[0])
        self.moments = conv(widths[-1], (2 if noisy else 1) * latents)
        self.conv_out = conv(widths[0], 4 * channels)
        tenth = torch.tensor(math.log(scale or SCALE) / 10)
        self.tenth: Tensor
        if scale:
            self.register_buffer("tenth", tenth)
        else:
            self.tenth = nn.Parameter(tenth)

    @property
    def log_scale(self) -> Tensor:
        """ln of the decoder's standard deviation, shape ()."""
        return 10 * self.tenth

    def encode(self, x: Tensor) -> Tensor:
        """Return means, and ln variances if it is noisy, of images (B, C, H, W): shape (B, c or 2c, H/f, W/f)."""
        check_images(x, self.channels, self.factor, f"factor {self.factor}")
        out = self.moments(self.norm_in(self.encoder(x), silu=True))
        if not self.noisy:
            return out
        mean, log_var = out.chunk(2, dim=1)
        return torch.cat((mean, log_var.clamp(*LOG_VARIANCE)), dim=1)

    def decode(self, z: Tensor) -> Tensor:
        """Return the images (B, C, H, W) of latents (B, c, H/f, W/f), not clipped."""
        check_images(z, self.latents, 1, "a latent")
        return F.pixel_shuffle(self.conv_out(self.norm_out(self.decoder(z), silu=True)), 2)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the images decoded from the means of their latents; a label changes nothing."""
        return self.decode(self.encode(x)[:, : self.latents])


def autoencoder(
    channels: int = 1,
    size: int = 28,
    factor: Size = 4,
    latents: Size = 4,
    width: Size = 32,
    mult: tuple[Size, ...] = (1, 2, 2),
    blocks: Depth = 1,
    noisy: bool = True,
    scale: Positive | None = None,
) -> ConvAutoencoder:
    """Make a convolutional autoencoder with a Gaussian posterior, or with none.

    Arguments:
        channels: Number of channels of an image.
        size: Side of the training images in pixels; any multiple of `factor` works when called.
        factor: How many times smaller a side of the latent is: 2, 4 or 8.
        latents: Channels of the latent.
        width: Channels after the first halving.
        mult: Channels after each halving in units of `width`; as many as the factor has are used.
        blocks: Residual blocks after each halving, and as many on the way back.
        noisy: Whether the encoder says a variance too: a Gaussian posterior, with a KL to pay; False for neither.
        scale: Standard deviation of the decoder in units of [-1, 1]; None to learn it.

    Raises:
        ValueError: If the factor is none of these, has more halvings than `mult` has widths, or does not divide the
            size; the nearest valid sizes are named.

    >>> autoencoder(size=28, latents=4)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 1, 28, 28])
    """
    if factor not in FACTORS:
        raise ValueError(f"factor must be one of {', '.join(map(str, FACTORS))}; got {factor}.")
    halvings = FACTORS.index(factor) + 1
    if len(mult) < halvings:
        raise ValueError(
            f"factor={factor} halves {halvings} times, and mult={mult} gives {len(mult)} widths. Add some."
        )
    check_size(size, factor, f"factor {factor}")
    return ConvAutoencoder(
        channels, factor, latents, tuple(width * m for m in mult[:halvings]), blocks, noisy, scale or 0.0
    )
