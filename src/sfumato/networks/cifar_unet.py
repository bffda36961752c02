"""The U-Nets of a course project that compared diffusion with GANs on CIFAR-10, after a well-known small tutorial code.

Double convolutions with one group per image and GELU, max pooling down, bilinear up (with matching corners), a
transformer block after every stage; the noise level's sinusoids (256, no dense layers) are mapped linearly and added
once per stage. The middle is a chain of double convolutions. The original's attention was tied to one size and mixed
images at any other; this one is right at every size. c_noise is the step 0..T-1.

| network | widths | middle | up | parameters | GMAC |
|---|---|---|---|---|---|
| UNet, three stages | 64,128,256,256 | 512,512,256 | 128,64,64 | 23,332,739 | 1.85 |
| UNet_conditional | the same, classes=10 | | | 23,335,299 | 1.85 |
| UNet_2xUD, two stages | 64,128,256 | 512,512,256 | 64,64 | 16,062,083 | 2.37 |
| half channels | 32,64,128 | 256,256,128 | 64,64 | 4,268,419 | .87 |
| SmallUNet_1 | 32,64,128 | 256,128 | 64,64 | 3,062,531, plain=(3,) | .64 |

(A network here has one row more in its class table, for the null label. The sixth network has no skips: `convnet`.)

References:
    "U-Net: Convolutional Networks for Biomedical Image Segmentation", Ronneberger et al., 2015,
        https://arxiv.org/abs/1505.04597
    "Attention Is All You Need", Vaswani et al., 2017, https://arxiv.org/abs/1706.03762
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core.bounds import Size

from ._embeddings import LabelTable, Sinusoid, geometric, noise_batch
from ._layers import GroupNorm, attend, check_images, check_size


class DoubleConv(nn.Module):
    """Two 3x3 convolutions, each normalised over the whole image; `residual` adds the input and activates.

    Arguments:
        width_in, hidden, width_out: Channels before, between and after the convolutions.
        residual: Whether to add the input; the widths are then equal.
    """

    def __init__(self, width_in: int, hidden: int, width_out: int, residual: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, hidden, 3, padding=1, bias=False)
        self.norm1 = GroupNorm(hidden, 1)
        self.conv2 = nn.Conv2d(hidden, width_out, 3, padding=1, bias=False)
        self.norm2 = GroupNorm(width_out, 1)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm2(self.conv2(F.gelu(self.norm1(self.conv1(x)))))
        return F.gelu(x + h) if self.residual else h


class Transformer(nn.Module):
    """Self-attention and a one-layer perceptron over the positions of each image, (B, C, H, W) -> same.

    Arguments:
        width: Channels, a multiple of `heads`.
        heads: Heads of attention.
    """

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"Attention over {width} channels cannot have {heads} heads.")
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.hidden, self.last = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, width, height, breadth = x.shape
        h = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm1(h)).reshape(batch, height * breadth, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        h = h + self.out(attend(q, k, v).transpose(1, 2).reshape(h.shape))
        h = h + self.last(F.gelu(self.hidden(self.norm2(h))))
        return h.transpose(1, 2).reshape(batch, width, height, breadth)


class Stage(nn.Module):
    """A residual and a narrowing double convolution, the embedding, and a transformer block where `attended`."""

    def __init__(self, width_in: int, hidden: int, width_out: int, embedding: int, heads: int, attended: bool) -> None:
        super().__init__()
        self.first = DoubleConv(width_in, width_in, width_in, residual=True)
        self.second = DoubleConv(width_in, hidden, width_out)
        self.shift = nn.Linear(embedding, width_out)
        self.attention = Transformer(width_out, heads) if attended else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.second(self.first(x))
        return self.attention(h + self.shift(e)[:, :, None, None].to(h.dtype))


class CifarUNet(nn.Module):
    """The network of this file; build it with `cifar_unet`, which describes the arguments."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        classes: int,
        widths: tuple[int, ...],
        middle: tuple[int, ...],
        up: tuple[int, ...],
        plain: tuple[int, ...],
        heads: int,
        embedding: int,
    ) -> None:
        super().__init__()
        self.channels, stages = channels, len(up)
        self.noise = Sinusoid(geometric(embedding // 2), sin_first=True)
        self.label = LabelTable(classes, embedding)
        self.conv_in = DoubleConv(channels, widths[0], widths[0])
        self.down = nn.ModuleList(
            Stage(a, b, b, embedding, heads, i not in plain) for i, (a, b) in enumerate(zip(widths, widths[1:]))
        )
        self.middle = nn.Sequential(*(DoubleConv(a, b, b) for a, b in zip((widths[-1], *middle), middle)))
        width, ups = (widths[-1], *middle)[-1], []
        for i, target in enumerate(up):
            joined = width + widths[-2 - i]
            ups.append(Stage(joined, joined // 2, target, embedding, heads, stages + i not in plain))
            width = target
        self.up = nn.ModuleList(ups)
        self.conv_out = nn.Conv2d(width, out_channels, 1)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        halvings = len(self.down)
        check_images(x, self.channels, 2**halvings, f"{halvings} halvings")
        e = F.silu(self.label.added(self.noise(noise_batch(c_noise, x)), label))
        h = self.conv_in(x)
        seen = [h]
        for stage in self.down:
            h = stage(F.max_pool2d(h, 2), e)
            seen.append(h)
        seen.pop()
        h = self.middle(h)
        for stage in self.up:
            h = F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=True)
            h = stage(torch.cat((seen.pop(), h), dim=1), e)
        return self.conv_out(h).to(x.dtype)


def cifar_unet(
    channels: int = 3,
    out_channels: int = 3,
    classes: int = 0,
    size: int = 32,
    widths: tuple[Size, ...] = (64, 128, 256, 256),
    middle: tuple[Size, ...] = (512, 512, 256),
    up: tuple[Size, ...] = (128, 64, 64),
    plain: tuple[Size, ...] = (),
    heads: Size = 4,
    embedding: Size = 256,
) -> CifarUNet:
    """U-Net with max pooling, GELU and a transformer block per stage; c_noise is the step 0..T-1.

    Arguments:
        channels: Image channels in.
        out_channels: Image channels out.
        classes: Number of classes, 0 = unlabelled; the label is added to the noise level's embedding.
        size: Side of the training images, a multiple of 2^stages.
        widths: Channels after the first double convolution and after every stage down.
        middle: Channels after every double convolution of the middle.
        up: Channels after every stage up, as many as there are stages down.
        plain: Stages without attention, counted down then up from 0.
        heads: Heads of attention.
        embedding: Length of the embedding, even.

    Raises:
        ValueError: If the numbers of stages differ, the heads do not divide a width, or the size cannot be halved.
    """
    stages = len(widths) - 1
    if len(up) != stages or stages < 1:
        raise ValueError(f"There must be as many stages up as down, at least one; got widths={widths}, up={up}.")
    check_size(size, 2**stages, f"{stages} halvings")
    if unknown := [i for i in plain if not 0 <= i < 2 * stages]:
        raise ValueError(f"plain names stages 0..{2 * stages - 1}, down then up; got {unknown[0]}.")
    return CifarUNet(channels, out_channels, classes, widths, middle, up, plain, heads, embedding)
