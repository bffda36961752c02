"""The few layers from which every network is made.

Conventions: feature maps are (B, C, H, W), embeddings (B, E). Normalisation is computed in float32 under half
precision (its statistics need it, and on CPUs it is faster); everything else follows autocast. Nothing here depends on
the image size: attention flattens each image's own H x W positions, so the batch is never mixed and any size works.

    attention   softmax(q k^T / sqrt(d)) v over the positions of one image: memory grows with (H W)^2
    resampling  by 2: pixel (un)shuffle loses nothing, mean pooling and nearest lose nothing that its adjoint needs

References:
    "Group Normalization", Wu and He, 2018, https://arxiv.org/abs/1803.08494
    "Attention Is All You Need", Vaswani et al., 2017, https://arxiv.org/abs/1706.03762, section 3.2
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HALF = (torch.float16, torch.bfloat16)
Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def conv(width_in: int, width_out: int, kernel: int = 3, zero: bool = False) -> nn.Conv2d:
    """Return a same-size convolution with Xavier-uniform (or zero) weights and zero bias."""
    layer = nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2)
    return start(layer, zero)


def linear(width_in: int, width_out: int, zero: bool = False) -> nn.Linear:
    """Return a linear layer with Xavier-uniform (or zero) weights and zero bias."""
    return start(nn.Linear(width_in, width_out), zero)


def start(layer: Layer, zero: bool = False) -> Layer:
    """Set a layer's weights to Xavier-uniform values, or to zero, and its bias to zero; return the layer."""
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class GroupNorm(nn.Module):
    """Normalise groups of channels per image, in float32 when the input is a half type.

    Arguments:
        width: Number of channels.
        groups: Number of groups, a divisor of `width`.
        eps: Added to the variance.
        affine: Whether to learn a gain and a bias per channel.
    """

    def __init__(self, width: int, groups: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        if width % groups:
            raise ValueError(f"GroupNorm needs a number of groups that divides the {width} channels; got {groups}.")
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype not in HALF:
            return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.group_norm(x.float(), self.groups, weight, bias, self.eps).to(x.dtype)


def group_norm(width: int, affine: bool = True, eps: float = 1e-5) -> GroupNorm:
    """Return a normalisation with min(32, width / 4) groups: at least four channels share their statistics."""
    return GroupNorm(width, max(1, min(32, width // 4)), eps, affine)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v for heads of positions, (B, heads, positions, d) each.

    On CPUs two batched products are faster than the fused kernel, in both passes; elsewhere the fused kernel saves the
    (positions, positions) matrix.
    """
    if q.device.type == "cuda":
        return F.scaled_dot_product_attention(q, k, v)
    scale = q.shape[-1] ** -0.25  # on both factors, so that half precision cannot overflow
    return torch.softmax((q * scale) @ (k * scale).transpose(-1, -2), dim=-1).to(v.dtype) @ v


def image_attention(qkv: Tensor, heads: int) -> Tensor:
    """Attend among the positions of each image.

    Arguments:
        qkv: Queries, keys and values stacked along the channels, each of `heads` heads, (B, 3 * C, H, W).
        heads: Number of heads, a divisor of C.

    Returns:
        Tensor (B, C, H, W).
    """
    batch, _, height, width = qkv.shape
    q, k, v = qkv.reshape(batch, 3, heads, -1, height * width).transpose(-1, -2).unbind(1)
    return attend(q, k, v).transpose(-1, -2).reshape(batch, -1, height, width)


def head_count(width: int, head_width: int) -> int:
    """Return how many heads of `head_width` channels make `width`, at least one.

    Raises:
        ValueError: If `width` is larger than `head_width` and not a multiple of it.
    """
    if width <= head_width:
        return 1
    if width % head_width:
        raise ValueError(f"Heads of {head_width} channels cannot fill {width} channels: choose a divisor of {width}.")
    return width // head_width


class Attention(nn.Module):
    """Add to a feature map what each position learns from all others of its image.

    Arguments:
        width: Number of channels.
        heads: Number of heads, a divisor of `width`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(width)
        self.qkv = conv(width, 3 * width, 1)
        self.out = conv(width, width, 1, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(image_attention(self.qkv(self.norm(x)), self.heads))


def check_images(x: Tensor, channels: int, multiple: int, reason: str) -> None:
    """Refuse images that a network cannot take.

    Arguments:
        x: Images (B, channels, H, W).
        channels: Number of channels that the network expects.
        multiple: Number that H and W must be multiples of.
        reason: Where the multiple comes from, for the message.

    Raises:
        ValueError: Naming the rule, the size received and the nearest valid sizes.
    """
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"This network takes images (B, {channels}, H, W); got {tuple(x.shape)}.")
    if any(side < multiple or side % multiple for side in x.shape[-2:]):
        near = [sorted({max(multiple, s // multiple * multiple), -(-s // multiple) * multiple}) for s in x.shape[-2:]]
        raise ValueError(
            f"Height and width must be positive multiples of {multiple} ({reason}); got {x.shape[-2]}x{x.shape[-1]}. "
            f"Nearest valid heights: {', '.join(map(str, near[0]))}; widths: {', '.join(map(str, near[1]))}."
        )
