"""EDM2: a U-Net in which every layer preserves the magnitude of its input.

Without normalisation of activations, their size stays one because each operation keeps the expected square:

    weights     w / |w| per output, times gain: a unit sum of squares over the inputs. In training the stored weight is
                itself put back to that norm at every forward, so that the learning rate alone decides the rotation
    SiLU        silu(x) / 0.596
    sum         ((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)
    concat      [a / sqrt(Na), b / sqrt(Nb)] weighted by 1 - t and t, rescaled to the joint size
    embedding   sqrt(2) cos(2 pi (f c + phase))
    pixels      x / rms(x) over the channels, at the top of every block on the way down

Blocks multiply by 1 + gain * (embedding) instead of shifting; there are no biases, a constant channel joins the image.
Attention normalises q, k and v, so its logits are cosines. The output gain starts at zero, hence F = 0. Since the
direction of the weights is all that counts, the recipe needs a learning rate that decays. c_noise is ln(sigma)/4.

| ImageNet-64 | width | parameters (1000 classes, with the 128 of the learned log-variance) | GMAC |
|---|---|---|---|
| XS | 128 | 124,710,949 | 44.9 |
| S | 192 | 280,209,381 | 100.8 |

(A network here has one column more in its class layer, for the null label, and leaves the log-variance to the loss.)

References:
    "Analyzing and Improving the Training Dynamics of Diffusion Models", Karras et al., 2024,
        https://arxiv.org/abs/2312.02696, sections 2 and appendix B
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core.bounds import Depth, Fraction, Positive, Share, Size, Whole
from sfumato.core.condition import Label, part_of

from ._embeddings import Beside, label_rows, noise_batch, refuse_label, widened
from ._ladder import attended_levels
from ._layers import HALF, Resample, attend, check_images

EPS = 1e-4
SILU_RMS = 0.596  # of silu(x) for x ~ N(0, 1)


def unit(x: Tensor, dim: tuple[int, ...] | int) -> Tensor:
    """Return x divided by its root mean square over `dim`, computed in at least float32."""
    wide = x.float() if x.dtype in HALF else x
    size = math.prod(x.shape[d] for d in ((dim,) if isinstance(dim, int) else dim))
    norm = torch.linalg.vector_norm(wide, dim=dim, keepdim=True) / math.sqrt(size)
    return (wide / (norm + EPS)).to(x.dtype)


def silu(x: Tensor) -> Tensor:
    """Return SiLU at the magnitude of its input."""
    return F.silu(x) / SILU_RMS


def blend(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Return the sum of a and b with shares 1 - t and t, at their magnitude if they are uncorrelated."""
    return torch.lerp(a, b, t) / math.hypot(1 - t, t)


def join(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Return the channels of a and of b, with shares 1 - t and t of the joint magnitude."""
    scale = math.sqrt((a.shape[1] + b.shape[1]) / ((1 - t) ** 2 + t**2))
    return torch.cat((a * (scale * (1 - t) / math.sqrt(a.shape[1])), b * (scale * t / math.sqrt(b.shape[1]))), dim=1)


class Layer(nn.Module):
    """Convolution (kernel 1 or 3) or linear layer (kernel 0) of unit gain, without bias.

    Arguments:
        width_in, width_out: Number of inputs and outputs.
        kernel: Side of the kernel; 0 for a linear layer.
    """

    def __init__(self, width_in: int, width_out: int, kernel: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width_out, width_in, *([kernel] * 2 if kernel else [])))
        self.kernel = kernel

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        dims = tuple(range(1, self.weight.ndim))
        if self.training and self.weight.requires_grad:
            # idempotent, and .data: a second forward before the backward finds the same numbers
            self.weight.data.copy_(unit(self.weight.data, dims))
        weight = unit(self.weight, dims) * (gain / math.sqrt(self.weight[0].numel()))
        weight = weight.to(x.dtype)
        return F.conv2d(x, weight, padding=self.kernel // 2) if self.kernel else F.linear(x, weight)


class Fourier(nn.Module):
    """Embed a scalar as `count` random cosines of unit magnitude, (B,) -> (B, count)."""

    frequencies: Tensor
    phases: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(count))
        self.register_buffer("phases", 2 * math.pi * torch.rand(count))

    def forward(self, c: Tensor) -> Tensor:
        angle = c[:, None] * self.frequencies.to(c.dtype) + self.phases.to(c.dtype)
        return angle.cos() * math.sqrt(2)


class Block(nn.Module):
    """Magnitude-preserving residual block, with attention where `heads` > 0.

    Arguments:
        width_in, width: Number of channels.
        embedding: Length of the embedding.
        down: Whether the block stands on the way down (normalised pixels) or up.
        move: "" keeps the side, "down" halves it, "up" doubles it.
        heads: Heads of attention, 0 = none.
        balance: Share of the residual branches.
        dropout: Probability inside the block.
        clip: Bound on the output.
    """

    def __init__(
        self,
        width_in: int,
        width: int,
        embedding: int,
        down: bool,
        move: str,
        heads: int,
        balance: float,
        dropout: float,
        clip: float,
    ) -> None:
        super().__init__()
        self.down, self.heads, self.balance, self.dropout, self.clip = down, heads, balance, dropout, clip
        self.resample = Resample(move == "up") if move else nn.Identity()
        self.shortcut = Layer(width_in, width, 1) if width_in != width else None
        self.conv1 = Layer(width if down else width_in, width, 3)
        self.modulation, self.gain = Layer(embedding, width), nn.Parameter(torch.zeros(()))
        self.conv2 = Layer(width, width, 3)
        self.qkv = Layer(width, 3 * width, 1) if heads else None
        self.out = Layer(width, width, 1) if heads else None

    def attention(self, x: Tensor) -> Tensor:
        """Return what each position learns from all others of its image."""
        assert self.qkv is not None and self.out is not None
        batch, _, height, width = x.shape
        qkv = self.qkv(x).reshape(batch, 3, self.heads, -1, height * width)
        q, k, v = unit(qkv, 3).transpose(-1, -2).unbind(1)
        return self.out(attend(q, k, v).transpose(-1, -2).reshape(x.shape))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        x = self.resample(x)
        if self.down:
            x = unit(x if self.shortcut is None else self.shortcut(x), 1)
        scale = self.modulation(e, self.gain) + 1
        y = silu(self.conv1(silu(x)) * scale[:, :, None, None].to(x.dtype))
        if self.dropout:
            y = F.dropout(y, self.dropout, self.training)
        y = self.conv2(y)
        if not self.down and self.shortcut is not None:
            x = self.shortcut(x)
        x = blend(x, y, self.balance)
        if self.heads:
            x = blend(x, self.attention(x), self.balance)
        return x.clamp(-self.clip, self.clip)


class EDM2(nn.Module):
    """The network of this file; build it with `edm2`, which describes the arguments."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        classes: int,
        widths: tuple[int, ...],
        blocks: int,
        attended: tuple[bool, ...],
        head_width: int,
        label_share: float,
        skip_share: float,
        balance: float,
        dropout: float,
        clip: float,
    ) -> None:
        super().__init__()
        self.channels, self.classes = channels, classes
        self.label_share, self.skip_share = label_share, skip_share
        features, embedding = widths[0], max(widths)

        def block(width_in: int, width: int, down: bool, move: str = "", attends: bool = False) -> Block:
            heads = width // head_width if attends else 0
            return Block(width_in, width, embedding, down, move, heads, balance, dropout, clip)

        self.noise, self.dense = Fourier(features), Layer(features, embedding)
        self.label = Layer(classes + 1, embedding) if classes else None  # the last input is "no label"
        self.conv_in = Layer(channels + 1, widths[0], 3)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width, remembered = widths[0], [widths[0]]
        for i, target in enumerate(widths):
            if i:
                self.down.append(block(width, width, True, "down"))
                remembered.append(width)
            for _ in range(blocks):
                self.down.append(block(width, target, True, attends=attended[i]))
                width = target
                remembered.append(width)
        self.middle = nn.ModuleList((block(width, width, False, attends=True), block(width, width, False)))
        for i in reversed(range(len(widths))):
            for _ in range(blocks + 1):
                self.up.append(block(width + remembered.pop(), widths[i], False, attends=attended[i]))
                width = widths[i]
            if i:
                self.up.append(block(width, width, False, "up"))
        self.conv_out, self.gain_out = Layer(width, out_channels, 3), nn.Parameter(torch.zeros(()))
        self.beside = Beside(embedding)

    def embed(self, x: Tensor, c_noise: Tensor, label: Label | None) -> Tensor:
        """Return the activated embedding of noise level and label, (B, max width)."""
        e = self.dense(self.noise(noise_batch(c_noise, x)))
        chosen = part_of(label, "label")
        if self.label is None:
            refuse_label(chosen)
            return silu(self.beside.informed(e, label))
        rows = label_rows(chosen, self.classes, len(x), x.device)
        # sqrt: a one-hot vector of magnitude one
        hot = F.one_hot(rows, self.classes + 1).to(e.dtype) * math.sqrt(self.classes + 1)
        return silu(self.beside.informed(blend(e, self.label(hot), self.label_share), label))

    def forward(self, x: Tensor, c_noise: Tensor, label: Label | None = None) -> Tensor:
        halvings = sum(isinstance(block.resample, Resample) for block in self.down)
        check_images(x, self.channels, 2**halvings, f"{halvings} halvings")
        e = self.embed(x, c_noise, label)
        h = self.beside.entered(self.conv_in(torch.cat((x, torch.ones_like(x[:, :1])), dim=1)), label)
        seen = [h]
        for block in self.down:
            h = block(h, e)
            seen.append(h)
        for block in self.middle:
            h = block(h, e)
        for block in self.up:
            if isinstance(block.resample, nn.Identity):
                h = join(h, seen.pop(), self.skip_share)
            h = block(h, e)
        return self.conv_out(h, self.gain_out).to(x.dtype)


def edm2(
    channels: int = 3,
    out_channels: int = 3,
    classes: int = 0,
    size: int = 64,
    width: Size = 128,
    mult: tuple[Size, ...] = (1, 2, 3, 4),
    blocks: Depth = 3,
    attention: tuple[Whole, ...] = (16, 8),
    head_width: Size = 64,
    label_share: Share = 0.5,
    skip_share: Share = 0.5,
    balance: Share = 0.3,
    dropout: Fraction = 0.0,
    clip: Positive = 256.0,
    vector: int = 0,
    extra: int = 0,
) -> EDM2:
    """EDM2's magnitude-preserving U-Net; c_noise = ln(sigma)/4.

    Arguments:
        channels: Image channels in.
        out_channels: Image channels out.
        classes: Number of classes, 0 = unlabelled.
        size: Side of the training images, which places the attention.
        width: Channels of the finest level.
        mult: Channels of each level in units of `width`, finest first.
        blocks: Residual blocks per level on the way down; one more on the way up.
        attention: Sides of the feature maps with attention; the middle always has it.
        head_width: Channels per head, a divisor of every attended width.
        label_share: Share of the label in the embedding, 0..1.
        skip_share: Share of the remembered output where the ways join, 0..1.
        balance: Share of the residual branches, 0..1.
        dropout: Probability inside the blocks.
        clip: Bound on every block's output.
        vector: Numbers of a condition's vector; 0 for none.
        extra: Channels of a condition's image, which join the first layer; 0 for none.

    Returns:
        A network whose output is zero until it is trained.

    Raises:
        ValueError: For a size, an attention side or a head width that does not fit.
    """
    attended = attended_levels(attention, size, len(mult))
    widths = tuple(width * m for m in mult)
    for level_width, here in zip(widths, attended, strict=True):
        if (here or level_width == widths[-1]) and level_width % head_width:
            raise ValueError(f"Heads of {head_width} channels cannot fill {level_width}: choose a divisor of it.")
    network = EDM2(
        channels, out_channels, classes, widths, blocks, attended, head_width, label_share, skip_share, balance,
        dropout, clip,
    )  # fmt: skip
    return widened(network, network.beside, network.conv_in, vector, extra)
