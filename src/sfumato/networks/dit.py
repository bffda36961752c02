"""DiT: a transformer on patches whose normalisations are modulated by noise level and label (adaLN-zero).

Patches of p x p pixels become tokens; every block is

    h <- h + g1 * attention(LN(h) * (1 + s1) + b1);   h <- h + g2 * mlp(LN(h) * (1 + s2) + b2)

with (b1, s1, g1, b2, s2, g2) linear in the activated embedding. Those linear layers start at zero, so every block
starts as the identity, and the last layer too, so F = 0. Positions are fixed sines and cosines of row and column,
which any size has, or learned ones, which other sizes read from in between. Memory grows with the square of the
tokens.

| network | patch | width | depth | heads | parameters (1000 classes) |
|---|---|---|---|---|---|
| DiT-S/2 of 32x32x4 latents, learned variance | 2 | 384 | 12 | 6 | 32,865,056 |
| DiT-XL/2 | 2 | 1152 | 28 | 16 | 674,834,720 |

(The original counts its fixed positions, width * 256 numbers, as parameters.)

References:
    "Scalable Diffusion Models with Transformers", Peebles and Xie, 2023, https://arxiv.org/abs/2212.09748, section 3
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core.bounds import Depth, Fraction, Size
from sfumato.core.condition import Label

from ._embeddings import LabelTable, Sinusoid, Span, embedded, geometric, log_spaced, widened
from ._layers import attend, check_images, linear

POSITIONS = ("sincos", "learned")
FEATURES = 256  # of the noise level


def sincos(height: int, width: int, channels: int) -> Tensor:
    """Return fixed positions (1, height * width, channels), row by row: half of the channels for column, half for row.

    Arguments:
        height, width: Number of patches in each direction.
        channels: Length of the result, a multiple of 4.
    """
    frequencies = geometric(channels // 4).double()
    parts = []
    for axis in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")[::-1]:
        angle = axis.reshape(-1, 1).double() * frequencies
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=1).float()[None]


class Block(nn.Module):
    """Transformer block with adaLN-zero, (B, tokens, width) -> same."""

    def __init__(self, width: int, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)  # used twice: it owns nothing
        self.qkv, self.out = linear(width, 3 * width), linear(width, width)
        self.hidden, self.last = linear(width, mlp * width), linear(mlp * width, width)
        self.modulation = linear(width, 6 * width, gain=0)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        b1, s1, g1, b2, s2, g2 = self.modulation(e)[:, None].chunk(6, dim=-1)
        batch, tokens, _ = h.shape
        qkv = self.qkv(torch.addcmul(b1, self.norm(h), 1 + s1))
        q, k, v = qkv.reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        h = h + g1 * self.out(attend(q, k, v).transpose(1, 2).reshape(h.shape))
        y = F.gelu(self.hidden(torch.addcmul(b2, self.norm(h), 1 + s2)), approximate="tanh")
        if self.dropout:
            y = F.dropout(y, self.dropout, self.training)
        return h + g2 * self.last(y)


class DiT(nn.Module):
    """The network of this file; build it with `dit`, which describes the arguments."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        classes: int,
        side: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        mlp: int,
        position: str,
        steps: bool,
        dropout: float,
        two_levels: bool,
    ) -> None:
        super().__init__()
        self.channels, self.out_channels, self.patch, self.width = channels, out_channels, patch, width
        frequencies = geometric(FEATURES // 2) if steps else log_spaced(FEATURES // 2)
        self.noise = nn.Sequential(Sinusoid(frequencies), linear(FEATURES, width), nn.SiLU(), linear(width, width))
        self.label = LabelTable(classes, width, std=0.02)
        self.embed = linear(channels * patch**2, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, width, side, side)) if position == "learned" else None
        self.blocks = nn.ModuleList(Block(width, heads, mlp, dropout) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation_out = linear(width, 2 * width, gain=0)
        self.out = linear(width, out_channels * patch**2, gain=0)
        self.span = Span(frequencies, width) if two_levels else None  # last: the other weights start as without it

    def positions(self, height: int, width: int, like: Tensor) -> Tensor:
        """Return the positions of height x width patches, (1, tokens, channels)."""
        if self.position is None:
            return sincos(height, width, self.width).to(like)
        grid: Tensor = self.position
        if grid.shape[-2:] != (height, width):
            grid = F.interpolate(grid, (height, width), mode="bicubic", align_corners=False)
        return grid.flatten(2).transpose(1, 2).to(like.dtype)

    def forward(self, x: Tensor, c_noise: Tensor, label: Label | None = None, to: Tensor | None = None) -> Tensor:
        check_images(x, self.channels, self.patch, f"patches of {self.patch}")
        e = F.silu(embedded(self.noise, self.label, self.span, x, c_noise, label, to))
        h = self.embed(F.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2))
        h = self.label.entered(h, label, self.patch)
        height, width = x.shape[-2] // self.patch, x.shape[-1] // self.patch
        h = h + self.positions(height, width, h)
        for block in self.blocks:
            h = block(h, e)
        shift, scale = self.modulation_out(e)[:, None].chunk(2, dim=-1)
        h = self.out(torch.addcmul(shift, self.norm_out(h), 1 + scale))
        return F.pixel_shuffle(h.transpose(1, 2).unflatten(2, (height, width)), self.patch).to(x.dtype)


def dit(
    channels: int = 1,
    out_channels: int = 1,
    classes: int = 0,
    size: int = 28,
    patch: Size = 2,
    width: Size = 192,
    depth: Depth = 6,
    heads: Size = 6,
    mlp: Size = 4,
    position: str = "sincos",
    steps: bool = False,
    dropout: Fraction = 0.0,
    two_levels: bool = False,
    vector: int = 0,
    extra: int = 0,
) -> DiT:
    """Transformer on patches with adaLN-zero; c_noise of order 1, or the step 0..T-1 with steps=True.

    Arguments:
        channels: Image channels in.
        out_channels: Image channels out.
        classes: Number of classes, 0 = unlabelled.
        size: Side of the training images, a multiple of `patch`.
        patch: Side of the patches.
        width: Length of a token, a multiple of 4 and of `heads`.
        depth: Number of blocks.
        heads: Heads of attention.
        mlp: Width of the perceptrons in units of `width`.
        position: Kind of position embedding, sincos or learned.
        steps: Whether c_noise is a step 0..T-1; otherwise it is of order 1.
        dropout: Probability inside the perceptrons.
        two_levels: Whether it is told where a step ends too, as objective=meanflow needs.
        vector: Numbers of a condition's vector; 0 for none.
        extra: Channels of a condition's image, which join the first layer; 0 for none.

    Returns:
        A network whose output is zero until it is trained.

    Raises:
        ValueError: For a size, width, number of heads or kind of position that does not fit.
    """
    if position not in POSITIONS:
        raise ValueError(f"Unknown position {position!r}. Available: {', '.join(POSITIONS)}.")
    if size % patch:
        raise ValueError(f"size must be a multiple of patch={patch}; got {size}.")
    if width % heads or width % 4:
        raise ValueError(f"width must be a multiple of 4 and of heads={heads}; got {width}.")
    side = size // patch
    network = DiT(
        channels, out_channels, classes, side, patch, width, depth, heads, mlp, position, steps, dropout, two_levels
    )
    return widened(network, network.label, network.embed, vector, extra, patch)
