"""The U-Net family of a course project on EDM: conditional normalisation, eight numbers of conditioning.

Random Fourier features of the noise level, plus a label's row, pass two dense layers of width 8; from those every
normalisation takes its gain and bias:

    h = conv1(ReLU(N(x; e)));  y = shortcut(x) + conv2(ReLU(N(h; e))),   N(x; e) = gain(e) * normalised(x) + bias(e)

Level i has width * 2^i channels and `depths[i]` blocks, each followed by attention where asked. Mean pooling leads
down; up, repetition and a convolution halve the channels before the sibling's output is concatenated. The original
normalises with BatchNorm, whose running statistics mix all noise levels; the default here is one group per image,
which needs none (norm="batch" is the original). c_noise is ln(sigma)/4.

| preset | size | depths | attention at | parameters | GMAC |
|---|---|---|---|---|---|
| FashionMNIST padded to 32, 10 classes | 32 | 2,2 | 32,16,8 | 5,031,081; none 4,150,953 | 1.74; .97 |
| CIFAR-10, 10 classes | 32 | 2,2 | 32,16,8 | 5,033,387; none 4,153,259 | |
| CelebA big | 128 | 2,2,2,2 | 32,16,8 | 81,317,715 | 33.6 |
| CelebA small | 128 | 2,2,2,2 | 16,8 | 80,246,611 | 30.4 |
| CelebA tiny | 128 | 1,2,4 | 16 | 35,181,651; none 30,942,291 | 28.2; 26.8 |

What it taught: concatenated skips matter when going up is only a 1x1 convolution (skips=False, up_kernel=1: noise and
weird textures); positional encoding is not needed, since zero padding tells where the border is; attention's memory
grows with the square of the pixels, so it belongs at 32 pixels a side and below.

References:
    "Modulating early visual processing by language", de Vries et al., 2017, https://arxiv.org/abs/1707.00683
    "Elucidating the Design Space of Diffusion-Based Generative Models", Karras et al., 2022,
        https://arxiv.org/abs/2206.00364
    "How Much Position Information Do Convolutional Neural Networks Encode?", Islam et al., 2020,
        https://arxiv.org/abs/2001.08248
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core.bounds import Depth, Size, Whole

from ._embeddings import LabelTable, Sinusoid, noise_batch
from ._ladder import attended_levels
from ._layers import GroupNorm, check_images, conv, image_attention, linear

NORMS = ("group", "batch")


class ConditionalNorm(nn.Module):
    """Normalise, then scale and shift by what the conditioning says.

    Arguments:
        width: Channels that are normalised.
        conditioning: Length of the conditioning.
        kind: "group" (statistics of one image) or "batch" (of the batch, running averages when sampling).
    """

    def __init__(self, width: int, conditioning: int, kind: str) -> None:
        super().__init__()
        groups = max(1, min(32, width // 4))
        self.norm = GroupNorm(width, groups, affine=False) if kind == "group" else nn.BatchNorm2d(width, affine=False)
        self.modulation = linear(conditioning, 2 * width, law="torch")

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        gain, bias = self.modulation(e)[:, :, None, None].to(x.dtype).chunk(2, dim=1)
        return torch.addcmul(bias, gain, self.norm(x))


class Block(nn.Module):
    """Residual block with conditional normalisation."""

    def __init__(self, width_in: int, width: int, conditioning: int, kind: str) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(width_in, conditioning, kind)
        self.norm2 = ConditionalNorm(width, conditioning, kind)
        self.conv1, self.conv2 = conv(width_in, width, law="torch"), conv(width, width, law="torch")
        self.shortcut = conv(width_in, width, 1, law="torch") if width_in != width else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x, e)))
        return self.shortcut(x) + self.conv2(F.relu(self.norm2(h, e)))


class ConditionalAttention(nn.Module):
    """Attention after a conditional normalisation; `side` > 0 adds a learned number per position first."""

    def __init__(self, width: int, heads: int, conditioning: int, kind: str, side: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"Attention over {width} channels cannot have {heads} heads.")
        self.heads = heads
        self.norm = ConditionalNorm(width, conditioning, kind)
        self.qkv, self.out = conv(width, 3 * width, 1, law="torch"), conv(width, width, 1, law="torch")
        self.position = nn.Parameter(0.01 * torch.randn(1, 1, side, side)) if side else None

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        if self.position is not None:  # at other sizes, the same positions are read from between the learned ones
            x = x + F.interpolate(self.position, x.shape[-2:], mode="bilinear", align_corners=True).to(x.dtype)
        return x + self.out(image_attention(self.qkv(self.norm(x, e)), self.heads))


class Stage(nn.Module):
    """The blocks of one level, each followed by attention where `heads` > 0."""

    def __init__(
        self, width_in: int, width: int, depth: int, conditioning: int, kind: str, heads: int, side: int
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for k in range(depth):
            self.layers.append(Block(width if k else width_in, width, conditioning, kind))
            if heads:
                self.layers.append(ConditionalAttention(width, heads, conditioning, kind, side))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, e)
        return x


class CondNormUNet(nn.Module):
    """The network of this file; build it with `condnorm_unet`, which describes the arguments."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        classes: int,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        heads: tuple[int, ...],
        sides: tuple[int, ...],
        conditioning: int,
        kind: str,
        skips: bool,
        up_kernel: int,
    ) -> None:
        super().__init__()
        self.channels, self.skips, levels = channels, skips, len(depths)
        features = Sinusoid(2 * math.pi * torch.randn(conditioning // 2), stored=True)
        self.noise, self.label = features, LabelTable(classes, conditioning)
        self.dense = nn.Sequential(
            linear(conditioning, conditioning, law="torch"), nn.SiLU(), linear(conditioning, conditioning, law="torch")
        )

        def stage(i: int, width_in: int) -> Stage:
            depth = depths[min(i, levels - 1)]
            return Stage(width_in, widths[i], depth, conditioning, kind, heads[i], sides[i])

        self.conv_in = conv(channels, widths[0], law="torch")
        self.down = nn.ModuleList(stage(i, widths[max(0, i - 1)]) for i in range(levels + 1))
        self.narrow = nn.ModuleList(
            conv(widths[i + 1], widths[i], up_kernel, law="torch") for i in reversed(range(levels))
        )
        self.up = nn.ModuleList(stage(i, (1 + skips) * widths[i]) for i in reversed(range(levels)))
        self.conv_out = conv(widths[0], out_channels, law="torch")

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        halvings = len(self.up)
        check_images(x, self.channels, 2**halvings, f"{halvings} halvings")
        e = self.dense(self.label.added(self.noise(noise_batch(c_noise, x)), label))
        h = self.conv_in(x)
        seen: list[Tensor] = []
        for i, stage in enumerate(self.down):
            h = stage(F.avg_pool2d(h, 2) if i else h, e)
            seen.append(h)
        seen.pop()
        for narrow, stage in zip(self.narrow, self.up, strict=True):
            h = narrow(F.interpolate(h, scale_factor=2, mode="nearest"))
            sibling = seen.pop()
            h = stage(torch.cat((h, sibling), dim=1) if self.skips else h, e)
        return self.conv_out(h).to(x.dtype)


def condnorm_unet(
    channels: int = 1,
    out_channels: int = 1,
    classes: int = 0,
    size: int = 32,
    width: Size = 64,
    depths: tuple[Depth, ...] = (2, 2),
    attention: tuple[Whole, ...] = (32, 16, 8),
    heads: tuple[Size, ...] = (4, 4, 4),
    conditioning: Size = 8,
    norm: str = "group",
    skips: bool = True,
    up_kernel: Size = 3,
    position: bool = False,
) -> CondNormUNet:
    """U-Net with conditional normalisation and attention per level, tiny to big; c_noise = ln(sigma)/4.

    Arguments:
        channels: Image channels in.
        out_channels: Image channels out.
        classes: Number of classes, 0 = unlabelled.
        size: Side of the training images, a multiple of 2^len(depths).
        width: Channels of the finest level; every level below has twice as many.
        depths: Residual blocks of each level and direction; the bridge below has as many as the last.
        attention: Sides of feature maps with attention; the smallest, size / 2^len(depths), is the bridge.
        heads: Heads of attention of each level and the bridge.
        conditioning: Length of the conditioning, even.
        norm: group, or batch as the original.
        skips: Whether the way up sees the way down.
        up_kernel: Side of the convolution after repetition on the way up, 3 or 1.
        position: Whether attention adds a learned number per position.

    Raises:
        ValueError: For a norm, size, attention side or number of heads that does not fit.
    """
    levels = len(depths)
    if norm not in NORMS:
        raise ValueError(f"Unknown norm {norm!r}. Available: {', '.join(NORMS)}.")
    if up_kernel not in (1, 3):
        raise ValueError(f"up_kernel is 1 or 3; got {up_kernel}.")
    if len(heads) != levels + 1:
        raise ValueError(f"heads names {levels} levels and the bridge, {levels + 1} numbers; got {heads}.")
    attended = attended_levels(attention, size, levels + 1)
    return CondNormUNet(
        channels,
        out_channels,
        classes,
        tuple(width * 2**i for i in range(levels + 1)),
        depths,
        tuple(h if here else 0 for h, here in zip(heads, attended, strict=True)),
        tuple((size >> i) * position for i in range(levels + 1)),
        conditioning,
        norm,
        skips,
        up_kernel,
    )
