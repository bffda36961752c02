"""JiT: a plain transformer on large patches of pixels that answers the clean image.

A patch of p x p x C numbers lies near a surface of few dimensions, noise does not; a network that answers the image
need not carry the noise through its tokens, so a token may be shorter than its patch. Patches pass a bottleneck,

    h <- B (A patch) + position,   A: p p C -> bottleneck (no bias),   B: bottleneck -> width

and every block is, with N the root-mean-square norm and (b1, s1, g1, b2, s2, g2) linear in the activated embedding,

    h <- h + g1 * attention(N(h) * (1 + s1) + b1);   h <- h + g2 * swiglu(N(h) * (1 + s2) + b2)
    swiglu(y) = V (SiLU(y1) * y2),   (y1, y2) = W y

Queries and keys are normalised per head, then rotated: the pairs of the first half of a head's channels by the row,
those of the second half by the column, with frequencies 10000^(-2k / (d/2)) for heads of d channels. From block
`context_from` on, `context` further tokens, copies of the label's embedding with learned positions and no rotation,
stand before the patches; they are dropped before the last layer.

The network is told the share of signal, alpha / (alpha + sigma) (`conditioning.signal_share`), sees x / (alpha + sigma)
(c_in "unit-line"), answers x0 (target "x0") and is trained by the error of the velocity (weighting "flow").

| network | patch | width | depth | heads | bottleneck | parameters (256x256, 1000 classes) |
|---|---|---|---|---|---|---|
| JiT-B/16 | 16 | 768 | 12 | 12 | 128 | 131,123,712 |
| JiT-L/16 | 16 | 1024 | 24 | 16 | 128 | 458,877,664 |
| JiT-H/16 | 16 | 1280 | 32 | 16 | 256 | 952,514,368 |

(The original counts its fixed positions, width * 256 numbers, as parameters.)

References:
    "Back to Basics: Let Denoising Generative Models Denoise", Li and He, 2025, https://arxiv.org/abs/2511.13720
    "RoFormer: Enhanced Transformer with Rotary Position Embedding", Su et al., 2021, https://arxiv.org/abs/2104.09864
    "GLU Variants Improve Transformer", Shazeer, 2020, https://arxiv.org/abs/2002.05202
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core.bounds import Depth, Few, Fraction, Size
from sfumato.core.condition import Label

from ._embeddings import LabelTable, Sinusoid, geometric, noise_batch, widened
from ._layers import attend, check_images, linear
from .dit import FEATURES, sincos

STD = 0.02  # standard deviation of the initial embeddings


class RMSNorm(nn.Module):
    """Divide vectors by their root mean square and multiply by a learned gain, in float32 under half precision."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.to(torch.promote_types(x.dtype, torch.float32))
        return F.rms_norm(y, (y.shape[-1],), self.weight.to(y.dtype), self.eps).to(x.dtype)


def rotations(height: int, width: int, channels: int, context: int = 0) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of the angle of every pair of channels at every token, float32 (tokens, channels / 2).

    Arguments:
        height: Height in patches.
        width: Width in patches.
        channels: Channels of a head, a multiple of 4.
        context: Tokens before the patches, which are not rotated.
    """
    frequencies = geometric(channels // 4).double()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angle = torch.cat([axis.reshape(-1, 1).double() * frequencies for axis in (rows, columns)], dim=1)
    angle = F.pad(angle, (0, 0, context, 0))
    return angle.cos().float(), angle.sin().float()


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring channels (2k, 2k + 1) by the angle k of their token; x has shape (..., tokens, channels)."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)


class Block(nn.Module):
    """Transformer block with adaLN-zero, rotary attention and SwiGLU, (B, tokens, width) -> same."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.norm_q, self.norm_k = RMSNorm(width // heads), RMSNorm(width // heads)
        self.qkv, self.out = linear(width, 3 * width), linear(width, width)
        self.gated, self.last = linear(width, 2 * hidden), linear(hidden, width)
        self.modulation = linear(width, 6 * width, gain=0)

    def forward(self, h: Tensor, e: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b1, s1, g1, b2, s2, g2 = self.modulation(e)[:, None].chunk(6, dim=-1)
        batch, tokens, _ = h.shape
        qkv = self.qkv(torch.addcmul(b1, self.norm1(h), 1 + s1))
        q, k, v = qkv.reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = (rotated(norm(x), cos, sin) for norm, x in ((self.norm_q, q), (self.norm_k, k)))
        y = self.out(attend(q, k, v).transpose(1, 2).reshape(h.shape))
        h = h + g1 * self._dropped(y)
        left, right = self.gated(torch.addcmul(b2, self.norm2(h), 1 + s2)).chunk(2, dim=-1)
        return h + g2 * self.last(self._dropped(F.silu(left) * right))

    def _dropped(self, y: Tensor) -> Tensor:
        return F.dropout(y, self.dropout, self.training) if self.dropout else y


class JiT(nn.Module):
    """The network of this file; build it with `jit`, which describes the arguments."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        classes: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        mlp: float,
        bottleneck: int,
        context: int,
        context_from: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.channels, self.out_channels, self.patch, self.width = channels, out_channels, patch, width
        self.context, self.context_from, self.head = context, context_from, width // heads
        told = [linear(FEATURES, width), linear(width, width)]
        for layer in told:
            nn.init.normal_(layer.weight, std=STD)
        self.noise = nn.Sequential(Sinusoid(geometric(FEATURES // 2)), told[0], nn.SiLU(), told[1])
        self.label = LabelTable(classes, width, std=STD)
        self.squeeze, self.embed = linear(channels * patch**2, bottleneck, bias=False), linear(bottleneck, width)
        self.context_position = nn.Parameter(STD * torch.randn(1, context, width)) if context else None
        middle = range(depth // 4, depth // 4 * 3)  # only these blocks drop
        hidden = int(width * mlp * 2 / 3)
        self.blocks = nn.ModuleList(Block(width, heads, hidden, dropout if i in middle else 0.0) for i in range(depth))
        self.norm_out = RMSNorm(width)
        self.modulation_out = linear(width, 2 * width, gain=0)
        self.out = linear(width, patch**2 * out_channels, gain=0)

    def forward(self, x: Tensor, c_noise: Tensor, label: Label | None = None) -> Tensor:
        check_images(x, self.channels, self.patch, f"patches of {self.patch}")
        e = self.noise(noise_batch(c_noise, x))
        row = self.label(label, len(x), x.device)
        e = F.silu(self.label.informed(e if row is None else e + row, label))
        height, width = x.shape[-2] // self.patch, x.shape[-1] // self.patch
        h = self.squeeze(F.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2))
        h = self.embed(self.label.entered(h, label, self.patch))
        h = h + sincos(height, width, self.width).to(h)
        turn = [part.to(x.device) for part in rotations(height, width, self.head)]
        for i, block in enumerate(self.blocks):
            if self.context_position is not None and row is not None and i == self.context_from:
                h = torch.cat(((row[:, None] + self.context_position).to(h.dtype), h), dim=1)
                turn = [part.to(x.device) for part in rotations(height, width, self.head, self.context)]
            h = block(h, e, *turn)
        h = h[:, h.shape[1] - height * width :]
        shift, scale = self.modulation_out(e)[:, None].chunk(2, dim=-1)
        y = self.out(torch.addcmul(shift, self.norm_out(h), 1 + scale))
        y = y.reshape(len(x), height, width, self.patch, self.patch, self.out_channels)
        return y.permute(0, 5, 1, 3, 2, 4).reshape(len(x), self.out_channels, *x.shape[-2:]).to(x.dtype)


def jit(
    channels: int = 1,
    out_channels: int = 1,
    classes: int = 0,
    size: int = 28,
    patch: Size = 4,
    width: Size = 192,
    depth: Depth = 6,
    heads: Size = 6,
    mlp: Few = 4.0,
    bottleneck: Size = 32,
    context: Depth = 0,
    context_from: Depth = 0,
    dropout: Fraction = 0.0,
    vector: int = 0,
    extra: int = 0,
) -> JiT:
    """Transformer on patches of pixels that answers x0; c_noise is the share of signal (conditioning signal-share).

    Arguments:
        channels: Image channels in.
        out_channels: Image channels out.
        classes: Number of classes, 0 = unlabelled.
        size: Side of the training images, a multiple of `patch`.
        patch: Side of the patches.
        width: Length of a token, a multiple of 4 and of `heads`; a head's share of it is a multiple of 4.
        depth: Number of blocks.
        heads: Heads of attention.
        mlp: Width of the gated layer in units of `width`, times 2/3.
        bottleneck: Numbers that a patch is squeezed into before it becomes a token.
        context: Tokens of the class put before the patches; 0 for none.
        context_from: Block before which they are put, counted from 0.
        dropout: Probability after attention and inside the gated layer, in the middle half of the blocks.
        vector: Numbers of a condition's vector; 0 for none.
        extra: Channels of a condition's image, which join the first layer; 0 for none.

    Returns:
        A network whose output is zero until it is trained.

    Raises:
        ValueError: For a size, width, number of heads or context that does not fit.
    """
    if size % patch:
        raise ValueError(f"size must be a multiple of patch={patch}; got {size}.")
    if width % (4 * heads):
        raise ValueError(f"width must be a multiple of 4 * heads = {4 * heads}, for rotations by pairs; got {width}.")
    if context and not (classes and 0 <= context_from < depth):
        raise ValueError(
            f"context={context} tokens repeat the class at a block in [0, depth={depth}); got classes={classes} and "
            f"context_from={context_from}. Set context=0 for an unlabelled network."
        )
    network = JiT(
        channels, out_channels, classes, patch, width, depth, heads, mlp, bottleneck, context, context_from, dropout
    )
    return widened(network, network.label, network.squeeze, vector, extra, patch)
