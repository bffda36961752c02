"""Noise levels and labels as vectors.

A scalar c becomes the pair of vectors cos(w_k c), sin(w_k c), k = 0..K-1. What differs between papers is the
frequencies w_k and the order of the two halves:

    geometric   w_k = max_period^(-k/K), or ^(-k/(K-1)) so that the slowest frequency is reached exactly; c is an
                integer step 0..T-1, so the periods run from 2 pi steps to far beyond T
    log_spaced  w_k from `low` to `high` in equal ratios; c is of order 1 (ln(sigma)/4, or a time in [0, 1])
    random      w_k = 2 pi N(0, scale^2), drawn once and stored with the weights

A label is a row of a table. A table over `classes` classes has one row more: row `classes` is the null label, to which
-1 and None both map, so "unconditional" is a learned embedding and class 0 is an ordinary class.

What a `Condition` tells beside a class enters through two layers that begin at zero, so that a network starts as it
would without them, and a null adds exactly nothing:

    vector   (B, 2 d) values and whether each is told -> added to the label's vector
    image    (B, 2 C, H, W) pixels and whether each is told -> added to the output of the network's first layer,
             which is what channels beside those of x would do, with further input weights of that layer

References:
    "Attention Is All You Need", Vaswani et al., 2017, https://arxiv.org/abs/1706.03762, section 3.5
    "Fourier Features Let Networks Learn High Frequency Functions", Tancik et al., 2020, https://arxiv.org/abs/2006.10739
    "Classifier-Free Diffusion Guidance", Ho and Salimans, 2022, https://arxiv.org/abs/2207.12598, section 3.2
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core.condition import NULL, Label, filled, part_of

from ._layers import conv, linear

Network = TypeVar("Network", bound=nn.Module)


def geometric(count: int, max_period: float = 10000.0, endpoint: bool = False) -> Tensor:
    """Return frequencies falling from 1 towards 1/max_period, float32 (count,).

    Arguments:
        count: Number of frequencies, >= 1 (>= 2 with `endpoint`).
        max_period: Inverse of the limiting frequency.
        endpoint: Whether the last frequency equals 1/max_period; otherwise it is one ratio above it.
    """
    k = torch.arange(count, dtype=torch.float32)
    return torch.exp(-math.log(max_period) * k / (count - 1 if endpoint else count))


def log_spaced(count: int, low: float = 0.5, high: float = 100.0) -> Tensor:
    """Return `count` >= 2 frequencies from `low` to `high` in equal ratios, float32 (count,), in radians."""
    return torch.exp(torch.linspace(math.log(low), math.log(high), count, dtype=torch.float32))


def noise_batch(c_noise: Tensor, x: Tensor) -> Tensor:
    """Return the conditioning number of every image, (B,), at least float32, on the images' device.

    Arguments:
        c_noise: Shape () or (B,).
        x: Images (B, C, H, W).

    Raises:
        ValueError: If the shape is neither () nor (B,).
    """
    if c_noise.shape not in ((), (x.shape[0],)):
        raise ValueError(
            f"c_noise must be one number or one per image, shape () or ({x.shape[0]},); got {tuple(c_noise.shape)}."
        )
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return c_noise.to(device=x.device, dtype=dtype).expand(x.shape[0])


class Sinusoid(nn.Module):
    """Embed a scalar per image as cosines and sines, (B,) -> (B, 2 * count).

    Arguments:
        frequencies: Radians per unit of the scalar, shape (count,).
        sin_first: Whether the sines form the first half.
        stored: Whether the frequencies belong to the state dict (random ones must).
    """

    frequencies: Tensor

    def __init__(self, frequencies: Tensor, sin_first: bool = False, stored: bool = False) -> None:
        super().__init__()
        self.register_buffer("frequencies", frequencies, persistent=stored)
        self.sin_first = sin_first

    def forward(self, c: Tensor) -> Tensor:
        # the angles reach 1000 radians, where half precision has no digits left: never under autocast
        angle = c[:, None] * self.frequencies.to(c.dtype)
        cos, sin = angle.cos(), angle.sin()
        return torch.cat((sin, cos) if self.sin_first else (cos, sin), dim=1)


class Span(nn.Module):
    """Embed how far a step goes, c_noise at its start less c_noise at its end; zero before it is trained.

    Arguments:
        frequencies: Radians per unit of c_noise, shape (count,).
        width: Length of the embedding.
    """

    def __init__(self, frequencies: Tensor, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Sinusoid(frequencies), linear(2 * len(frequencies), width), nn.SiLU(), linear(width, width, gain=0)
        )

    def forward(self, length: Tensor) -> Tensor:
        return self.layers(length)


def label_rows(label: Tensor | None, classes: int, batch: int, device: torch.device) -> Tensor:
    """Return the table row of every image, int64 (B,): the class, or `classes` for -1 and None.

    Arguments:
        label: Classes int64 (B,) in 0..classes-1 or -1, or None for no label at all.
        classes: Number of classes, >= 1.
        batch: Number of images B.
        device: Device of the result.

    Raises:
        ValueError: If the shape is not (B,), the type is not int64, or (checked on the CPU only, because looking at a
            value on an accelerator would wait for it) a label lies outside -1..classes-1.
    """
    if label is None:
        return torch.full((batch,), classes, dtype=torch.int64, device=device)
    if label.shape != (batch,) or label.dtype != torch.int64:
        raise ValueError(
            f"label must be int64 of shape ({batch},), one per image; got {label.dtype} {tuple(label.shape)}."
        )
    graph = torch.compiler.is_compiling() or torch.jit.is_tracing()  # has no values to look at
    seen = label.device.type == "cpu" and batch > 0 and not graph
    if seen and not NULL <= int(label.min()) <= int(label.max()) < classes:
        raise ValueError(
            f"Labels lie in 0..{classes - 1}, or {NULL} for none; got {int(label.min())}..{int(label.max())}."
        )
    label = label.to(device)
    return torch.where(label == NULL, classes, label)


def refuse_label(label: Tensor | None) -> None:
    """Raise a ValueError if an unlabelled network is given a label."""
    if label is not None:
        raise ValueError("This network is unlabelled (classes=0): pass label=None, or build it with classes >= 1.")


class Beside(nn.Module):
    """Tell a network the vector and the image of a condition; it owns nothing until `widened` gives it layers.

    Arguments:
        width: Length of the embedding that the vector is added to.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.vector: nn.Linear | None = None
        self.image: nn.Linear | nn.Conv2d | None = None

    def informed(self, e: Tensor, label: Label | None) -> Tensor:
        """Return embeddings (B, width) plus what the condition's vectors say."""
        told = _told(self.vector, label, "vector")
        return e if self.vector is None or told is None else e + self.vector(filled(told.to(e)))

    def entered(self, h: Tensor, label: Label | None, patch: int = 1) -> Tensor:
        """Return the output of the network's first layer plus what the condition's images say.

        Arguments:
            h: Features (B, width, H, W), or tokens (B, N, width) if that layer is linear.
            label: What each image is told.
            patch: Side of the patches that the layer takes as channels.
        """
        told = _told(self.image, label, "image")
        if self.image is None or told is None:
            return h
        seen = F.pixel_unshuffle(filled(told.to(h)), patch)
        return h + self.image(seen.flatten(2).transpose(1, 2) if isinstance(self.image, nn.Linear) else seen)


def _told(layer: nn.Module | None, label: Label | None, name: str) -> Tensor | None:
    """Return a part of a label, refused by a network that has no layer for it."""
    value = part_of(label, name)
    if layer is None and value is not None:
        raise ValueError(f"This network is told no {name}: leave it out of the condition, or train with one.")
    return value


def widened(network: Network, beside: Beside, first: nn.Module, vector: int, extra: int, patch: int = 1) -> Network:
    """Return a network that is told numbers and images beside its own labels; its other weights stay as they are.

    Arguments:
        network: Any that calls `beside`.
        beside: The module of the network that is to be given layers.
        first: First layer of the network, a convolution or a linear one, whose output the images join.
        vector: Numbers of a condition's vector; 0 for none.
        extra: Channels of a condition's image; 0 for none.
        patch: Side of the patches that the first layer takes as channels.
    """
    if vector:
        beside.vector = linear(2 * vector, beside.width, gain=0, bias=False)
    if extra:
        width, _, *kernel = first.get_parameter("weight").shape
        channels = 2 * extra * patch**2
        beside.image = (
            conv(channels, width, kernel[0], gain=0, bias=False)
            if kernel
            else linear(channels, width, gain=0, bias=False)
        )
    return network


class LabelTable(Beside):
    """Look up a learned vector per label, with a last row for "no label"; it adds what else a condition tells.

    Arguments:
        classes: Number of classes; 0 makes a table that refuses labels, and owns nothing and returns None unless it is
            given the last row (`keep_null_row`).
        width: Length of the vectors.
        std: Standard deviation of the initial rows.
    """

    def __init__(self, classes: int, width: int, std: float = 1.0) -> None:
        super().__init__(width)
        self.classes = classes
        self.table = nn.Embedding(classes + 1, width) if classes else None
        if self.table is not None:
            nn.init.normal_(self.table.weight, std=std)

    def forward(self, label: Label | None, batch: int, device: torch.device) -> Tensor | None:
        chosen = part_of(label, "label")
        if not self.classes:
            refuse_label(chosen)
        return None if self.table is None else self.table(label_rows(chosen, self.classes, batch, device))

    def added(self, e: Tensor, label: Label | None) -> Tensor:
        """Return embeddings (B, width) plus the labels' vectors; as they are in an unlabelled network."""
        row = self(label, len(e), e.device)
        return self.informed(e if row is None else e + row, label)


def label_tables(network: nn.Module) -> dict[str, LabelTable]:
    """Return a network's tables of labels by their path in it."""
    return {path: module for path, module in network.named_modules() if isinstance(module, LabelTable)}


def untrained_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return, by path, the layers of a network that add nothing before they are trained, or to what is not told.

    They tell it the vector of a condition (".vector"), the image (".image"), and how far a step goes.
    """
    found: dict[str, nn.Module] = {}
    for path, module in network.named_modules():
        if isinstance(module, Span):
            found[path] = module
        elif isinstance(module, Beside):
            named = {f"{path}.vector": module.vector, f"{path}.image": module.image}
            found |= {name: layer for name, layer in named.items() if layer is not None}
    return found


def keep_null_row(network: nn.Module) -> None:
    """Give an unlabelled network the row for "no label", which it then adds to every image's embedding."""
    for table in label_tables(network).values():
        table.table = nn.Embedding(1, table.width)


def embedded(
    noise: nn.Module,
    table: LabelTable,
    span: Span | None,
    x: Tensor,
    c_noise: Tensor,
    label: Label | None,
    to: Tensor | None,
) -> Tensor:
    """Return the sum of the embeddings of level, label and step, (B, width).

    Arguments:
        noise: The embedding of c_noise, (B,) -> (B, width).
        table: The labels' table, (B,) -> (B, width).
        span: The embedding of how far the step goes; None for a network that is not told.
        x: Images (B, C, H, W).
        c_noise: Shape () or (B,).
        label: int64 (B,), a `Condition`, or None.
        to: c_noise where the step ends, shape () or (B,); None for a step of no length.
    """
    start = noise_batch(c_noise, x)
    e = table.added(noise(start), label)
    return e if span is None else e + span(start - (start if to is None else noise_batch(to, x)))
