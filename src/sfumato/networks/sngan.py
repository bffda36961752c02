"""SNGAN: a generator and a discriminator of residual blocks, the discriminator's layers of spectral norm 1.

    G: z -> linear -> coarsest map -> blocks that double -> BatchNorm, ReLU, 3x3, tanh
    D: image -> blocks that halve -> blocks that keep the side -> ReLU, sum over positions -> one logit

A block of G is conv(up(x)) by 1x1 + conv(ReLU(BN(conv(up(ReLU(BN(x))))))); one of D has no normalisation, and the mean
of 2x2 after its two convolutions. D's first block starts with a convolution, since ReLU would cut the image. A labelled
pair has a gain and a bias per class in every BatchNorm of G's blocks, and a projection in D (`_spectral.Projection`).
The pair is one module, as DCGAN's.

| images | up | down | flat | latent | G | D |
|---|---|---|---|---|---|---|
| 32x32 | 256,256,256 | 128,128 | 2 | 128 | 4,276,739 | 1,053,824 |
| 8x8, one channel | 64 | 64 | 1 | 32 | 112,769 | 111,616 |

References:
    "Spectral Normalization for Generative Adversarial Networks", Miyato et al., 2018,
        https://arxiv.org/abs/1802.05957, table 4
    "cGANs with Projection Discriminator", Miyato and Koyama, 2018, https://arxiv.org/abs/1802.05637
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core.bounds import Size, Whole
from sfumato.core.condition import Label

from ._embeddings import LabelTable
from ._layers import check_images, conv, linear, start
from ._spectral import Projection, SpectralConv, SpectralLinear
from .dcgan import DCGAN, Prior, check_prior

GAIN = 2**0.5  # of the initial weights inside a residual branch


def spectral(width_in: int, width_out: int, kernel: int, gain: float = 1.0) -> nn.Conv2d:
    """Return a convolution of spectral norm 1 that keeps the size."""
    return start(SpectralConv(width_in, width_out, kernel, padding=kernel // 2), gain)


class ClassNorm(nn.Module):
    """BatchNorm with a gain and a bias, for each class their own where there are classes."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=not classes)
        self.label = LabelTable(classes, 2 * width, std=0.0)

    def forward(self, x: Tensor, label: Label | None) -> Tensor:
        row, h = self.label(label, len(x), x.device), self.norm(x)
        if row is None:
            return h
        gain, bias = row.to(h.dtype)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(bias, h, 1 + gain)


class UpBlock(nn.Module):
    """Residual block of G that doubles the side."""

    def __init__(self, width_in: int, width: int, classes: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ClassNorm(width_in, classes), ClassNorm(width, classes)
        self.conv1, self.conv2 = conv(width_in, width, gain=GAIN), conv(width, width, gain=GAIN)
        self.shortcut = conv(width_in, width, 1)

    def forward(self, x: Tensor, label: Label | None) -> Tensor:
        h = self.conv1(F.interpolate(F.relu(self.norm1(x, label)), scale_factor=2, mode="nearest"))
        h = self.conv2(F.relu(self.norm2(h, label)))
        return h + self.shortcut(F.interpolate(x, scale_factor=2, mode="nearest"))


class DownBlock(nn.Module):
    """Residual block of D.

    Arguments:
        width_in, width: Channels of its input and its output.
        halves: Whether it halves the side.
        first: Whether it meets the image.
    """

    def __init__(self, width_in: int, width: int, halves: bool, first: bool = False) -> None:
        super().__init__()
        self.halves, self.first = halves, first
        hidden = width if first else width_in
        self.conv1, self.conv2 = spectral(width_in, hidden, 3, GAIN), spectral(hidden, width, 3, GAIN)
        self.shortcut = spectral(width_in, width, 1) if halves or width_in != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        h = h + self.shortcut(x)
        return F.avg_pool2d(h, 2) if self.halves else h


class Generator(nn.Module):
    """Make images from latents, (B, latent) -> (B, out_channels, size, size) in (-1, 1).

    Arguments:
        latent: Length of the latent z.
        up: Channels of the coarsest map and of each block.
        out_channels: Channels of the images.
        side: Height and width of the coarsest map.
        classes: Number of classes, 0 = unlabelled.
    """

    def __init__(self, latent: int, up: tuple[int, ...], out_channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.latent, self.side = latent, side
        self.dense = linear(latent, up[0] * side**2)
        self.blocks = nn.ModuleList(UpBlock(a, b, classes) for a, b in pairwise((up[0], *up)))
        self.norm_out, self.conv_out = nn.BatchNorm2d(up[-1]), conv(up[-1], out_channels)

    def forward(self, z: Tensor, label: Label | None = None) -> Tensor:
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(f"This generator takes latents (B, {self.latent}); got {tuple(z.shape)}.")
        h = self.dense(z).unflatten(1, (-1, self.side, self.side))
        for block in self.blocks:
            h = block(h, label)
        return torch.tanh(self.conv_out(F.relu(self.norm_out(h)))).to(z.dtype)


class Discriminator(nn.Module):
    """Judge images, (B, channels, size, size) -> (B,) logits, positive = real.

    Arguments:
        channels: Channels of the images.
        down: Channels of each block that halves the side.
        flat: Number of blocks after them, which keep it.
        size: Height and width of the images.
        classes: Number of classes, 0 = unlabelled.
    """

    def __init__(self, channels: int, down: tuple[int, ...], flat: int, size: int, classes: int) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        widths = (channels, *down, *[down[-1]] * flat)
        self.blocks = nn.ModuleList(
            DownBlock(a, b, halves=i < len(down), first=not i) for i, (a, b) in enumerate(pairwise(widths))
        )
        self.last = start(SpectralLinear(down[-1], 1, bias=False))
        self.project = Projection(classes, down[-1], spectral=True)

    def forward(self, x: Tensor, label: Label | None = None) -> Tensor:
        check_images(x, self.channels, self.size, "the discriminator's size")
        h = x
        for block in self.blocks:
            h = block(h)
        h = F.relu(h).sum(dim=(2, 3))
        return self.project(self.last(h)[:, 0], h, label).to(x.dtype)


def sngan(
    channels: int = 3,
    classes: int = 0,
    size: int = 32,
    latent: Size = 128,
    up: tuple[Size, ...] = (256, 256, 256),
    down: tuple[Size, ...] = (128, 128),
    flat: Whole = 2,
    prior: Prior = "normal",
) -> DCGAN:
    """SNGAN's residual generator, and its discriminator of spectral norm 1, with a projection for labels.

    Arguments:
        channels: Image channels, made and judged.
        classes: Number of classes, 0 = unlabelled.
        size: Side of the images, a multiple of 2^len(up) and of 2^len(down).
        latent: Length of the latent z.
        up: Channels of the generator's blocks, coarsest first; each doubles the side.
        down: Channels of the discriminator's blocks that halve the side.
        flat: Number of the discriminator's blocks that keep it.
        prior: Distribution of z, "normal" or "uniform" on (-1, 1).

    Raises:
        ValueError: If the blocks cannot halve the size so often, or the prior is unknown.
    """
    check_prior(prior)
    for name, blocks in (("up", up), ("down", down)):
        if not blocks or size % 2 ** len(blocks):
            fitting = [n for n in range(1, 10) if not size % 2**n]
            raise ValueError(
                f"{name} has a block for each halving, at least one; size={size} does not go with {len(blocks)}. "
                f"Blocks that fit: {', '.join(map(str, fitting)) or 'none; the size must be even'}."
            )
    return DCGAN(
        Generator(latent, up, channels, size >> len(up), classes),
        Discriminator(channels, down, flat, size, classes),
        prior,
    )
