"""ADM's classifier of noisy images: the way down of its U-Net, and a pooling.

log p(y | x_t, t) guides a diffusion model, so the classifier sees the same noise levels through the same embedding.
Its pooling is attention from the mean feature to all positions (with a learned position each, so it works at the
training size only), the mean over positions, or a perceptron on the means of every layer on the way down (`spatial`,
and `spatial-norm`, which normalises its hidden layer; guided-diffusion calls it spatial_v2).

| size | blocks | parameters (1000 classes, width 128) |
|---|---|---|
| 64 | 4 | 65,438,568 |
| 128 | 2 | 42,568,040 |
| 256 | 2 | 54,096,360 |
| 512 | 2 | 54,448,360 |

References:
    "Diffusion Models Beat GANs on Image Synthesis", Dhariwal and Nichol, 2021,
        https://arxiv.org/abs/2105.05233, section 4
    "Learning Transferable Visual Models From Natural Language Supervision", Radford et al., 2021,
        https://arxiv.org/abs/2103.00020, section 2.4 (attention pooling)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core.bounds import ByLevel, ByLevelOr0, Depth, Few, Fraction, Size, Whole

from ._embeddings import Sinusoid, geometric, refuse_label
from ._ladder import Embedder, Encoder, attended_levels, check_ladder, level_widths
from ._layers import attend, linear
from .adm import adm_style, check_resample

POOLS = ("attention", "mean", "spatial", "spatial-norm")
HIDDEN = 2048  # units of a perceptron on the means of all layers


class MeanPool(nn.Module):
    """Average over the positions, then map to logits: (B, width, H, W) -> (B, classes)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.out = linear(width, classes, gain=0)

    def forward(self, h: Tensor) -> Tensor:
        return self.out(h.mean(dim=(2, 3)))


class AttentionPool(nn.Module):
    """Let the mean feature attend to all positions: (B, width, side, side) -> (B, classes).

    Arguments:
        width: Channels of the feature map.
        side: Height and width of the feature map.
        heads: Heads of attention.
        classes: Number of logits.
    """

    def __init__(self, width: int, side: int, heads: int, classes: int) -> None:
        super().__init__()
        self.heads, self.side = heads, side
        self.position = nn.Parameter(torch.randn(width, side**2 + 1) / width**0.5)  # column 0 belongs to the mean
        self.qkv = linear(width, 3 * width, law="torch")
        self.out = linear(width, classes, law="torch")

    def forward(self, h: Tensor) -> Tensor:
        if h.shape[-2:] != (self.side, self.side):
            raise ValueError(
                f"Attention pooling was built for feature maps of {self.side}x{self.side}, the training size; "
                f"got {h.shape[-2]}x{h.shape[-1]}. Other sizes need pool='mean'."
            )
        h = h.flatten(2)
        h = torch.cat((h.mean(dim=-1, keepdim=True), h), dim=-1) + self.position
        batch, width, positions = h.shape
        qkv = self.qkv(h.transpose(1, 2)).reshape(batch, positions, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return self.out(attend(q[:, :, :1], k, v).reshape(batch, width))


class MeansPool(nn.Module):
    """Map the means of all layers to logits by a perceptron: (B, features) -> (B, classes).

    Arguments:
        features: Channels of all layers together.
        classes: Number of logits.
        norm: Normalisation of the hidden layer, which SiLU follows; None for ReLU without one.
    """

    def __init__(self, features: int, classes: int, norm: nn.Module | None) -> None:
        super().__init__()
        self.dense = linear(features, HIDDEN, law="torch")
        self.norm = norm
        self.out = linear(HIDDEN, classes, law="torch")

    def forward(self, h: Tensor) -> Tensor:
        h = self.dense(h)
        return self.out(F.relu(h) if self.norm is None else F.silu(self.norm(h)))


class ADMClassifier(nn.Module):
    """Called as network(x, c_noise) -> logits (B, classes), without a label; build it with `adm_classifier`.

    Arguments:
        embedder: Embeds the noise level.
        encoder: The way down.
        norm_out: Normalisation of the last feature map, which `pool` is given; None for a pool of all layers' means.
        pool: Makes the logits.
    """

    def __init__(self, embedder: Embedder, encoder: Encoder, norm_out: nn.Module | None, pool: nn.Module) -> None:
        super().__init__()
        self.embedder, self.encoder, self.norm_out, self.pool = embedder, encoder, norm_out, pool

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        check_ladder(self.encoder, x)
        refuse_label(label)
        h, seen = self.encoder(x, self.embedder(x, c_noise, None, None))
        if self.norm_out is None:
            h = torch.cat([layer.mean(dim=(2, 3)) for layer in (*seen, h)], dim=1)
        else:
            h = F.silu(self.norm_out(h))
        return self.pool(h).to(x.dtype)


def adm_classifier(
    channels: int = 3,
    classes: int = 1000,
    size: int = 64,
    width: Size = 128,
    mult: tuple[Few, ...] = (1, 2, 3, 4),
    blocks: Depth = 4,
    attention: tuple[Whole, ...] = (32, 16, 8),
    heads: ByLevel = 4,
    head_width: ByLevelOr0 = 64,
    adaptive: bool = True,
    resample: str = "block",
    dropout: Fraction = 0.0,
    pool: str = "attention",
    groups: Size = 32,
) -> ADMClassifier:
    """ADM's classifier of noisy images; c_noise is the step 0..T-1, the output logits (B, classes).

    Arguments:
        channels: Channels of the image.
        classes: Number of classes, >= 2.
        size: Side of the training images, which places the attention.
        width: Channels in units of which `mult` counts, even.
        mult: Channels of each level in units of `width`, finest first.
        blocks: Residual blocks per level.
        attention: Sides of the feature maps with attention.
        heads: Heads of attention where `head_width` is 0; or a number for each level, finest first.
        head_width: Channels per head, or a number for each level; 0 = count by `heads`.
        adaptive: Whether the embedding scales and shifts (AdaGN); otherwise it is added.
        resample: What resamples: block (residual blocks), conv (convolutions) or mean (no weights).
        dropout: Probability inside the blocks.
        pool: Kind of pooling: attention, mean, spatial or spatial-norm.
        groups: Groups of the normalisation.

    Raises:
        ValueError: For a pool, size, attention side, heads or number of classes that do not fit.
    """
    if pool not in POOLS:
        raise ValueError(f"Unknown pool {pool!r}. Available: {', '.join(POOLS)}.")
    if classes < 2:
        raise ValueError(f"A classifier tells at least 2 classes apart; got classes={classes}.")
    check_resample(resample)
    style = adm_style(adaptive, False, heads, head_width, dropout, groups, 1)
    embedder = Embedder(Sinusoid(geometric(width // 2)), width, 4 * width, 0, 0, False, style.law)
    widths = level_widths(width, mult)
    attended = attended_levels(attention, size, len(mult))
    encoder = Encoder(channels, widths, widths[0], blocks, attended, True, 4 * width, style, resample)
    last, side = widths[-1], size >> (len(mult) - 1)
    if pool in ("spatial", "spatial-norm"):
        norm = style.norm(HIDDEN) if pool == "spatial-norm" else None
        return ADMClassifier(embedder, encoder, None, MeansPool(sum(encoder.outputs) + last, classes, norm))
    head: nn.Module = MeanPool(last, classes)
    if pool == "attention":
        head = AttentionPool(last, side, style.by_level(len(mult))[-1].head_count(last), classes)
    return ADMClassifier(embedder, encoder, style.norm(last), head)
