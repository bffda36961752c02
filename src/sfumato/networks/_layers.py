"""The few layers from which every network is made.

Conventions: feature maps are (B, C, H, W), embeddings (B, E). Normalisation is computed in float32 under half
precision (its statistics need it, and on CPUs it is faster); everything else follows autocast. Nothing here depends on
the image size: attention flattens each image's own H x W positions, so the batch is never mixed and any size works.

    attention   softmax(q k^T / sqrt(d)) v over the positions of one image: memory grows with (H W)^2
    resampling  a depthwise filter with stride 2 and its adjoint; the filter (1, 1) is the mean of 2x2 and "nearest"

References:
    "Group Normalization", Wu and He, 2018, https://arxiv.org/abs/1803.08494
    "Attention Is All You Need", Vaswani et al., 2017, https://arxiv.org/abs/1706.03762, section 3.2
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import _fused, _winograd

MANY = 256  # positions from which on the fused attention is the faster one on CPUs
HALF = (torch.float16, torch.bfloat16)
Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def start(layer: Layer, gain: float = 1.0, law: str = "xavier") -> Layer:
    """Give a layer its initial weights; return the layer.

    Arguments:
        layer: Convolution or linear layer.
        gain: Factor on the weights; 0 makes the layer, bias included, start at zero.
        law: "xavier" = uniform with variance 2 / (inputs + outputs), bias 0; "torch" = uniform with variance
            1 / (3 inputs), bias alike, as PyTorch's constructors do.
    """
    with torch.no_grad():
        if law == "xavier":
            nn.init.xavier_uniform_(layer.weight)
        layer.weight.mul_(gain)
        if layer.bias is not None and (law == "xavier" or not gain):
            layer.bias.zero_()
    return layer


def conv(
    width_in: int, width_out: int, kernel: int = 3, gain: float = 1.0, law: str = "xavier", bias: bool = True
) -> nn.Conv2d:
    """Return a convolution that keeps the size; see `start` for its weights."""
    kind = Conv3 if kernel == 3 else nn.Conv2d
    return start(kind(width_in, width_out, kernel, padding=kernel // 2, bias=bias), gain, law)


def linear(width_in: int, width_out: int, gain: float = 1.0, law: str = "xavier", bias: bool = True) -> nn.Linear:
    """Return a linear layer; see `start` for its weights."""
    return start(nn.Linear(width_in, width_out, bias), gain, law)


class Conv3(nn.Conv2d):
    """A 3x3 convolution of padding 1, which a precision may let compute with fewer products (`_winograd`)."""

    fewer_products = False
    _packed: tuple[Tensor, tuple[int, int], Tensor] | None = None  # weights, where and when they were taken, result

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """Return the convolution of features (B, C, H, W), plus what is added to it (B, D, H, W)."""
        if self.fewer_products and _winograd.usable(x, weight := self.weight):
            return _winograd.convolve(x, weight, self.bias, self._kept(weight), plus)
        y = super().forward(x)
        return y if plus is None else plus + y

    def _kept(self, weight: Tensor) -> Tensor | None:
        """Return the transformed weights, made once for as long as they stay; None where they are about to change."""
        if torch.is_grad_enabled() or weight.is_inference() or type(weight) is not nn.Parameter:
            return None
        state = (weight.data_ptr(), weight._version)
        if self._packed is None or self._packed[0] is not weight or self._packed[1] != state:
            self._packed = (weight, state, _winograd.pack(weight))
        return self._packed[2]


def take_fewer_products(network: nn.Module) -> None:
    """Let the 3x3 convolutions of a network compute with fewer products where they can."""
    for module in network.modules():
        if isinstance(module, Conv3):
            module.fewer_products = True


def fewer_products_pay(network: nn.Module) -> bool:
    """Return whether a network has 3x3 convolutions that this processor computes faster with fewer products."""
    taken = (m for m in network.modules() if isinstance(m, Conv3) and _winograd.fits(m.weight))
    return next(taken, None) is not None and _winograd.library() is not None


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
            raise ValueError(
                f"GroupNorm needs a number of groups that divides the {width} channels; got {groups}. Take widths that "
                f"are multiples of {groups}."
            )
        self.width, self.groups, self.eps = width, groups, eps
        self.weight = nn.Parameter(torch.ones(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine else None

    def forward(
        self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, silu: bool = False
    ) -> Tensor:
        """Return GN(x), or SiLU(GN(x) * (1 + scale) + shift): what follows a normalisation, in the same pass.

        Arguments:
            x: Features (B, width, H, W).
            scale, shift: Modulation per image and channel (B, width); None for none.
            silu: Whether SiLU follows.
        """
        if _fused.usable(x):
            gain, bias = self._modulated(scale, shift, x.device)
            return _fused.norm_act(x, self.groups, self.eps, gain, bias, silu)
        h = self._normalised(x)
        if scale is not None and shift is not None:
            h = torch.addcmul(shift.to(h.dtype)[:, :, None, None], h, 1 + scale.to(h.dtype)[:, :, None, None])
        return F.silu(h) if silu else h

    def _modulated(self, scale: Tensor | None, shift: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return gain and shift of the normalised values, float32, (width,) or (B, width)."""
        if scale is not None and shift is not None:
            factor, shift = 1 + scale.float(), shift.float()
            if self.weight is None or self.bias is None:
                return factor, shift
            return self.weight.float() * factor, self.bias.float() * factor + shift
        gain = torch.ones(self.width, device=device) if self.weight is None else self.weight.float()
        return gain, torch.zeros(self.width, device=device) if self.bias is None else self.bias.float()

    def _normalised(self, x: Tensor) -> Tensor:
        if _fused.differentiated(x):
            x = x.contiguous()  # torch's forward derivative takes no other memory format
        if x.dtype not in HALF:
            return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.group_norm(x.float(), self.groups, weight, bias, self.eps).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v for heads of positions, (B, heads, positions, d) each.

    The fused kernel never holds the (positions, positions) matrix. On CPUs two batched products are faster for few
    positions, and for many the fused kernel, which wants its heads contiguous.
    """
    if _fused.differentiated(q):
        return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1).to(v.dtype) @ v
    device = _fused.acting(q)
    if device == "cuda":
        return _scaled_dot_product(q, k, v)
    if device == "cpu" and q.shape[-2] >= MANY:
        return _scaled_dot_product(q.contiguous(), k.contiguous(), v.contiguous())
    scale = q.shape[-1] ** -0.25  # on both factors, so that half precision cannot overflow
    return torch.softmax((q * scale) @ (k * scale).transpose(-1, -2), dim=-1).to(v.dtype) @ v


def _scaled_dot_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if q.device.type == "meta":  # where torch would otherwise take the products apart
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]
    return F.scaled_dot_product_attention(q, k, v)


def image_attention(qkv: Tensor, heads: int) -> Tensor:
    """Attend among the positions of each image.

    Arguments:
        qkv: Queries, keys and values stacked along the channels, each of `heads` heads, (B, 3 * C, H, W).
        heads: Number of heads, a divisor of C.

    Returns:
        Tensor (B, C, H, W).
    """
    batch, _, height, width = qkv.shape  # channels last, as the convolutions before and after it are fastest
    q, k, v = qkv.permute(0, 2, 3, 1).reshape(batch, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4)
    return attend(q, k, v).transpose(1, 2).reshape(batch, height, width, -1).permute(0, 3, 1, 2)


def near_multiples(side: int, multiple: int) -> list[int]:
    """Return the one or two positive multiples that are nearest to a side, ascending."""
    return sorted({max(multiple, side // multiple * multiple), -(-side // multiple) * multiple})


def check_size(size: int, multiple: int, reason: str) -> None:
    """Refuse a side of training images that a network cannot halve; arguments as in `check_images`."""
    if size < multiple or size % multiple:
        near = " or ".join(map(str, near_multiples(size, multiple)))
        raise ValueError(f"size must be a multiple of {multiple} ({reason}); got {size}. Nearest: {near}.")


def check_images(x: Tensor, channels: int, multiple: int, reason: str) -> None:
    """Refuse images that a network cannot take.

    Arguments:
        x: Images (B, channels, H, W).
        channels: Number of channels that the network expects.
        multiple: Number that H and W must be multiples of.
        reason: Origin of the multiple, for the message.

    Raises:
        ValueError: Naming the rule, the size received and the nearest valid sizes.
    """
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"This network takes images (B, {channels}, H, W); got {tuple(x.shape)}.")
    if any(side < multiple or side % multiple for side in x.shape[-2:]):
        near = [near_multiples(side, multiple) for side in x.shape[-2:]]
        raise ValueError(
            f"Height and width must be positive multiples of {multiple} ({reason}); got {x.shape[-2]}x{x.shape[-1]}. "
            f"Nearest valid heights: {', '.join(map(str, near[0]))}; widths: {', '.join(map(str, near[1]))}."
        )


class Resample(nn.Module):
    """Halve or double the side with a separable filter, every channel alone; no weights.

    Down is a convolution with stride 2, up is its adjoint times 4, so a constant stays constant.

    Arguments:
        up: Whether to double; otherwise halve.
        taps: The filter, an even number of taps; (1, 1) = mean and nearest, (1, 3, 3, 1) = smooth.

    References:
        "Score-Based Generative Modeling through SDEs", Song et al., 2021, https://arxiv.org/abs/2011.13456, appendix H
    """

    kernel: Tensor

    def __init__(self, up: bool, taps: tuple[int, ...] = (1, 1)) -> None:
        super().__init__()
        if not taps or len(taps) % 2:
            raise ValueError(f"A resampling filter has an even number of taps; got {taps}.")
        line = torch.tensor(taps, dtype=torch.float32)
        self.up, self.pad, self.box = up, (len(taps) - 1) // 2, set(taps) == {1} and len(taps) == 2
        self.register_buffer("kernel", torch.outer(line, line) / line.sum() ** 2 * (4 if up else 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.box:
            return F.interpolate(x, scale_factor=2, mode="nearest") if self.up else F.avg_pool2d(x, 2)
        width = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(width, 1, -1, -1)
        move = F.conv_transpose2d if self.up else F.conv2d
        return move(x, kernel, stride=2, padding=self.pad, groups=width)
