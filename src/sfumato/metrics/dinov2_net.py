"""The DINOv2 vision transformer, as its published checkpoints name it; the features are the normed class token.

    tokens   14x14 patches by one convolution, a class token in front, learned positions (a 37x37 grid, resized)
    block    x + g1 * attention(norm(x));  x + g2 * mlp(norm(x))          g: one learned scale a channel
    out      norm(tokens)[0]

Depth, width and number of heads (width / 64) are read off the weights: S, B and L differ in nothing else.

References:
    Oquab et al. DINOv2: Learning Robust Visual Features without Supervision. 2023. https://arxiv.org/abs/2304.07193
    Stein et al. Exposing flaws of generative model evaluation metrics and their unfair treatment of diffusion
        models. 2023. https://arxiv.org/abs/2306.04675
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

PATCH, HEAD = 14, 64


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for queries, keys and values."""

    def __init__(self, width: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, width // HEAD, HEAD).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    """Two linear layers with GELU between, four times as wide inside."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Scale(nn.Module):
    """Multiply each channel by a learned number."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * x


class Block(nn.Module):
    """One transformer block."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(width, eps=1e-6), Attention(width), Scale(width)
        self.norm2, self.mlp, self.ls2 = nn.LayerNorm(width, eps=1e-6), Mlp(width), Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Turn patches into tokens."""

    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class DinoNet(nn.Module):
    """The network, from images (B, 3, 14 h, 14 w), normalised by ImageNet's mean and deviation, to (B, width).

    Arguments:
        width: Channels of a token, a multiple of 64.
        depth: Number of blocks.
        grid: Side of the learned grid of positions.
    """

    def __init__(self, width: int, depth: int, grid: int = 37):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of pre-training; in the checkpoint, not used
        self.patch_embed = PatchEmbed(width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Return the positions (1, 1 + rows * columns, width) by bicubic interpolation of the learned grid.

        The published network enlarges the scale factor by 0.1 of a patch; its features depend on that.
        """
        first, rest = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        grid = math.isqrt(rest.shape[1])
        if (rows, columns) == (grid, grid):
            return self.pos_embed
        square = rest.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        scale = ((rows + 0.1) / grid, (columns + 0.1) / grid)
        resized = functional.interpolate(square, scale_factor=scale, mode="bicubic", antialias=False)
        return torch.cat((first, resized.permute(0, 2, 3, 1).flatten(1, 2)), 1)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2] // PATCH, x.shape[3] // PATCH
        tokens = torch.cat((self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)), 1)
        tokens = tokens + self.positions(rows, columns)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, 0]
