"""The residual block and the attention block of every convolutional denoiser, written once.

    h = conv1(R(SiLU(GN(x))));   h = SiLU(GN(h + b)) or SiLU(GN(h) * (1 + s) + b)
    y = (shortcut(R(x)) + conv2(dropout(h))) * scale

with s, b linear in the embedding of noise level and label. R halves, doubles or keeps the side, on both branches. The
published networks differ in a handful of choices, which are the fields of `Style`: addition or modulation (AdaGN),
groups and epsilon of the normalisation, scale of the sums (1 or 1/sqrt 2), initial weights, heads.

References:
    "Denoising Diffusion Probabilistic Models", Ho et al., 2020, https://arxiv.org/abs/2006.11239, appendix B
    "Large Scale GAN Training for High Fidelity Natural Image Synthesis", Brock et al., 2019,
        https://arxiv.org/abs/1809.11096, appendix B (resampling inside the block)
    "Diffusion Models Beat GANs on Image Synthesis", Dhariwal and Nichol, 2021,
        https://arxiv.org/abs/2105.05233, section 3
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from ._layers import GroupNorm, Resample, conv, image_attention, linear


@dataclass(frozen=True, slots=True)
class Style:
    """The choices in which published blocks differ.

    Arguments:
        groups: Largest number of groups of a normalisation.
        group_width: Least number of channels in a group.
        eps: Epsilon of the normalisation.
        adaptive: Whether the embedding scales and shifts the second normalisation; otherwise it is added before it.
        affine: Whether an adaptive normalisation keeps a gain and bias of its own.
        scale: Factor on every residual sum.
        dropout: Probability before the second convolution.
        heads: Heads of attention; a tuple has a number for each level, finest first.
        head_width: Channels per head, at least one head; 0 = count by `heads`. A tuple as for `heads`.
        law: Initial weights, see `_layers.start`.
        zero: Gain of the layers that end a residual branch or the network.
        attention_gain: Gain of queries, keys and values.
        taps: Filter of the resampling inside blocks.
        project: Whether a resampling block has a 1x1 shortcut even if its width does not change.
    """

    groups: int = 32
    group_width: int = 1
    eps: float = 1e-5
    adaptive: bool = True
    affine: bool = True
    scale: float = 1.0
    dropout: float = 0.0
    heads: int | tuple[int, ...] = 1
    head_width: int | tuple[int, ...] = 0
    law: str = "torch"
    zero: float = 0.0
    attention_gain: float = 1.0
    taps: tuple[int, ...] = (1, 1)
    project: bool = False

    def norm(self, width: int, affine: bool = True) -> GroupNorm:
        """Return the normalisation of `width` channels."""
        return GroupNorm(width, max(1, min(self.groups, width // self.group_width)), self.eps, affine)

    def by_level(self, levels: int) -> tuple[Style, ...]:
        """Return the style of each level, finest first: they differ in their heads of attention.

        Raises:
            ValueError: If heads or head_width name another number of levels.
        """
        named = {name: one_by_level(getattr(self, name), levels, name) for name in ("heads", "head_width")}
        return tuple(
            replace(self, heads=heads, head_width=width)
            for heads, width in zip(named["heads"], named["head_width"], strict=True)
        )

    def head_count(self, width: int) -> int:
        """Return the number of heads for `width` channels, at a level's own style.

        Raises:
            ValueError: If the heads cannot share the channels equally.
        """
        assert isinstance(self.heads, int) and isinstance(self.head_width, int)  # `by_level`
        heads = max(1, width // self.head_width) if self.head_width else self.heads
        if width % heads or (self.head_width and width > self.head_width and width % self.head_width):
            asked = f"heads of {self.head_width} channels" if self.head_width else f"{heads} heads"
            raise ValueError(f"Attention over {width} channels cannot have {asked}: choose a divisor of {width}.")
        return heads


def one_by_level(number: int | tuple[int, ...], levels: int, name: str) -> tuple[int, ...]:
    """Return a number for each level, finest first.

    Arguments:
        number: The same for all levels, or one for each.
        levels: How many there are.
        name: What is counted, for the message.

    Raises:
        ValueError: If there are more or fewer numbers than levels.

    >>> one_by_level(4, 3, "heads"), one_by_level((1, 2), 2, "heads")
    ((4, 4, 4), (1, 2))
    """
    numbers = number if isinstance(number, tuple) else (number,) * levels
    if len(numbers) != levels:
        raise ValueError(
            f"{name} is one number, or one for each of {levels} levels, finest first; got {len(numbers)}: "
            f"{','.join(map(str, numbers))}."
        )
    return numbers


class ResidualBlock(nn.Module):
    """Residual block modulated by an embedding, (B, width_in, H, W) -> (B, width_out, H', W').

    Arguments:
        width_in, width_out: Number of channels.
        embedding: Length of the embedding.
        style: The choices of the paper.
        resample: "" keeps the side, "down" halves it, "up" doubles it.
    """

    def __init__(self, width_in: int, width_out: int, embedding: int, style: Style, resample: str = "") -> None:
        super().__init__()
        self.adaptive, self.scale, self.dropout = style.adaptive, style.scale, style.dropout
        self.resample = Resample(resample == "up", style.taps) if resample else nn.Identity()
        self.norm1 = style.norm(width_in)
        self.conv1 = conv(width_in, width_out, law=style.law)
        self.modulation = linear(embedding, width_out * (2 if style.adaptive else 1), law=style.law)
        self.norm2 = style.norm(width_out, affine=style.affine or not style.adaptive)
        self.conv2 = conv(width_out, width_out, gain=style.zero, law=style.law)
        projected = width_in != width_out or (bool(resample) and style.project)
        self.shortcut = conv(width_in, width_out, 1, law=style.law) if projected else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.conv1(self.resample(self.norm1(x, silu=True)))
        modulation = self.modulation(e)
        if self.adaptive:
            h = self.norm2(h, *modulation.chunk(2, dim=1), silu=True)
        else:
            h = self.norm2(h + modulation[:, :, None, None].to(h.dtype), silu=True)
        if self.dropout:
            h = F.dropout(h, self.dropout, self.training)
        y: Tensor = self.conv2(h, plus=self.shortcut(self.resample(x)))
        return y if self.scale == 1 else y * self.scale


class Attention(nn.Module):
    """Add to a feature map what each position learns from all others of its image.

    Arguments:
        width: Number of channels.
        style: The choices of the paper.
    """

    def __init__(self, width: int, style: Style) -> None:
        super().__init__()
        self.heads, self.scale = style.head_count(width), style.scale
        self.norm = style.norm(width)
        self.qkv = conv(width, 3 * width, 1, style.attention_gain, style.law)
        self.out = conv(width, width, 1, style.zero, style.law)

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.out(image_attention(self.qkv(self.norm(x)), self.heads))
        return y if self.scale == 1 else y * self.scale
