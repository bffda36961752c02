"""A plain encoder and decoder without skips: the control that shows what a U-Net's skips are for.

Strided convolutions down, transposed convolutions up, GroupNorm and SiLU between; the embedded noise level and label
are added after every convolution. Everything the output knows has passed through the narrowest map, so fine detail of
the noise cannot be predicted, and the images blur. At width (64, 192, 192, 256) it has the size of the plain network
that a student report compared with its U-Nets (4.07 million parameters, 0.21 GMAC at 32x32). c_noise is of order 1.

References:
    "U-Net: Convolutional Networks for Biomedical Image Segmentation", Ronneberger et al., 2015,
        https://arxiv.org/abs/1505.04597 (what this network lacks)
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core.bounds import Depth, Size

from ._embeddings import LabelTable, Sinusoid, log_spaced, noise_batch
from ._layers import GroupNorm, check_images, check_size, conv, linear, start


class Stage(nn.Module):
    """A convolution, the embedding, normalisation and SiLU."""

    def __init__(self, move: nn.Conv2d | nn.ConvTranspose2d, embedding: int) -> None:
        super().__init__()
        width = move.out_channels
        self.move, self.shift = move, linear(embedding, width)
        self.norm = GroupNorm(width, max(1, min(32, width // 4)))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.move(x)
        return self.norm(h + self.shift(e)[:, :, None, None].to(h.dtype), silu=True)


class ConvNet(nn.Module):
    """The network of this file; build it with `convnet`, which describes the arguments."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        classes: int,
        widths: tuple[int, ...],
        middle: int,
        embedding: int,
        frequencies: int,
    ) -> None:
        super().__init__()
        self.channels, self.halvings = channels, len(widths) - 1
        self.noise = nn.Sequential(Sinusoid(log_spaced(frequencies)), linear(2 * frequencies, embedding))
        self.label = LabelTable(classes, embedding)
        pairs = list(zip(widths, widths[1:]))
        moves: list[nn.Conv2d | nn.ConvTranspose2d] = [conv(channels, widths[0])]
        moves += [start(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in pairs]
        moves += [conv(widths[-1], widths[-1]) for _ in range(middle)]
        moves += [start(nn.ConvTranspose2d(b, a, 4, stride=2, padding=1)) for a, b in reversed(pairs)]
        self.stages = nn.ModuleList(Stage(move, embedding) for move in moves)
        self.conv_out = conv(widths[0], out_channels, gain=0)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        check_images(x, self.channels, 2**self.halvings, f"{self.halvings} halvings")
        e = F.silu(self.label.added(self.noise(noise_batch(c_noise, x)), label))
        h = x
        for stage in self.stages:
            h = stage(h, e)
        return self.conv_out(h).to(x.dtype)


def convnet(
    channels: int = 3,
    out_channels: int = 3,
    classes: int = 0,
    size: int = 32,
    widths: tuple[Size, ...] = (64, 192, 192, 256),
    middle: Depth = 1,
    embedding: Size = 224,
    frequencies: Size = 32,
) -> ConvNet:
    """Plain convolutional encoder and decoder without skips; c_noise of order 1.

    Arguments:
        channels: Image channels in.
        out_channels: Image channels out.
        classes: Number of classes, 0 = unlabelled.
        size: Side of the training images, a multiple of 2^(len(widths) - 1).
        widths: Channels at every resolution, finest first.
        middle: Convolutions at the coarsest resolution.
        embedding: Length of the embedding of noise level and label.
        frequencies: Number of frequencies that embed c_noise.

    Returns:
        A network whose output is zero until it is trained.

    Raises:
        ValueError: If the size cannot be halved so often.
    """
    check_size(size, 2 ** (len(widths) - 1), f"{len(widths) - 1} halvings")
    return ConvNet(channels, out_channels, classes, widths, middle, embedding, frequencies)
