"""The U-Net topology of DDPM, iDDPM, ADM, DDPM++ and NCSN++: one ladder down, one ladder up.

    down    conv_in; for every level: [halve], `blocks` steps            every output is remembered
    middle  a block with attention, a block
    up      for every level, coarsest first: `blocks` + 1 steps, [double]    every step takes one remembered output

A step is a residual block and, at chosen levels, attention. Halving and doubling are a strided and a nearest-neighbour
convolution (DDPM, iDDPM) or residual blocks that resample inside (ADM, DDPM++). NCSN++ adds a second path down: the
image itself, convolved and halved, joins the sum at every level. For large images it has shorter paths instead: the
halved image joins through a 1x1 convolution, and on the way up every level makes an image, which are doubled and added.

The noise level is embedded by sinusoids and two dense layers; the label is added before the dense layers (DDPM++) or
after them (iDDPM, ADM). A paper is then a row: the files beside this one only choose.

References:
    "Denoising Diffusion Probabilistic Models", Ho et al., 2020, https://arxiv.org/abs/2006.11239, appendix B
    "Improved Denoising Diffusion Probabilistic Models", Nichol and Dhariwal, 2021, https://arxiv.org/abs/2102.09672
    "Diffusion Models Beat GANs on Image Synthesis", Dhariwal and Nichol, 2021, https://arxiv.org/abs/2105.05233
    "Score-Based Generative Modeling through SDEs", Song et al., 2021, https://arxiv.org/abs/2011.13456, appendix H
    "Elucidating the Design Space of Diffusion-Based Generative Models", Karras et al., 2022,
        https://arxiv.org/abs/2206.00364, appendix F
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core.condition import Label

from ._blocks import Attention, ResidualBlock, Style
from ._embeddings import LabelTable, Sinusoid, noise_batch, widened
from ._layers import Resample, check_images, check_size, conv, linear, start


class Embedder(nn.Module):
    """Embed noise level, label and augmentation of every image, (B, width), activated.

    Arguments:
        sinusoid: Features of the noise level.
        features: Number of those features.
        width: Length of the embedding.
        classes: Number of classes, 0 = unlabelled.
        augments: Number of augmentation labels, 0 = none.
        early: Whether the label joins the features before the dense layers; otherwise the embedding after them.
        law: Initial weights, see `_layers.start`.
    """

    def __init__(
        self, sinusoid: Sinusoid, features: int, width: int, classes: int, augments: int, early: bool, law: str
    ) -> None:
        super().__init__()
        self.sinusoid, self.early = sinusoid, early
        self.dense1 = linear(features, width, law=law)
        self.dense2 = linear(width, width, law=law)
        self.label = LabelTable(classes, features if early else width)
        self.augment = linear(augments, features, law=law, bias=False) if augments else None

    def forward(self, x: Tensor, c_noise: Tensor, label: Label | None, augment: Tensor | None) -> Tensor:
        e = self.sinusoid(noise_batch(c_noise, x))
        if self.early:
            e = self.label.added(e, label)
        if augment is not None:
            if self.augment is None:
                raise ValueError("This network takes no augmentation labels: build it with augments >= 1.")
            e = e + self.augment(augment)
        e = self.dense2(F.silu(self.dense1(e)))
        return F.silu(e if self.early else self.label.added(e, label))


class StridedConv(nn.Module):
    """Halve the side with a 3x3 convolution; `corner` pads right and below only, as Ho et al. do."""

    def __init__(self, width: int, corner: bool, law: str) -> None:
        super().__init__()
        self.conv = start(nn.Conv2d(width, width, 3, stride=2, padding=0 if corner else 1), law=law)
        self.pad = (0, 1, 0, 1) if corner else (0, 0, 0, 0)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.pad))


class NearestConv(nn.Module):
    """Double the side by repetition, then convolve 3x3."""

    def __init__(self, width: int, law: str) -> None:
        super().__init__()
        self.conv = conv(width, width, law=law)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Plain(nn.Module):
    """Halve or double the side without weights: mean of 2x2, or repetition."""

    def __init__(self, up: bool) -> None:
        super().__init__()
        self.move = Resample(up)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.move(x)


def halve(width: int, embedding: int, style: Style, resampling: str) -> nn.Module:
    """Return the layer that halves the side; `resampling` as for `Encoder`."""
    if resampling == "block":
        return ResidualBlock(width, width, embedding, style, "down")
    return Plain(up=False) if resampling == "mean" else StridedConv(width, resampling == "corner", style.law)


def double(width: int, embedding: int, style: Style, resampling: str) -> nn.Module:
    """Return the layer that doubles the side; `resampling` as for `Encoder`."""
    if resampling == "block":
        return ResidualBlock(width, width, embedding, style, "up")
    return Plain(up=True) if resampling == "mean" else NearestConv(width, style.law)


class ImagePath(nn.Module):
    """Convolve 3x3 and halve with a filter, the second path down of NCSN++: (B, C, 2H, 2W) -> (B, width, H, W)."""

    def __init__(self, width_in: int, width: int, style: Style) -> None:
        super().__init__()
        # the convolution runs on the padded image, so that the filter that follows needs no padding of its own
        pad = 1 + (len(style.taps) - 1) // 2
        self.conv = start(nn.Conv2d(width_in, width, 3, padding=pad), law=style.law)
        self.halve = Resample(up=False, taps=style.taps)
        self.halve.pad = 0

    def forward(self, h: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the level's features after the image has joined, and the image path's new value."""
        h = (h + self.halve(self.conv(image))) * 0.5**0.5
        return h, h


class ImageSkip(nn.Module):
    """Halve the image with a filter and let it join through a 1x1 convolution; called as `ImagePath`."""

    def __init__(self, channels: int, width: int, style: Style) -> None:
        super().__init__()
        self.halve = Resample(up=False, taps=style.taps)
        self.conv = start(nn.Conv2d(channels, width, 1), law=style.law)

    def forward(self, h: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the level's features after the image has joined, and the halved image."""
        image = self.halve(image)
        return h + self.conv(image), image


class ImageOut(nn.Module):
    """Make an image of a level's features and add it to that of the coarser levels, doubled."""

    def __init__(self, width: int, channels: int, style: Style) -> None:
        super().__init__()
        self.norm = style.norm(width)
        self.conv = conv(width, channels, gain=style.zero, law=style.law)
        self.upsample = Resample(up=True, taps=style.taps)

    def forward(self, h: Tensor, below: Tensor | None) -> Tensor:
        image: Tensor = self.conv(self.norm(h, silu=True))
        return image if below is None else image + self.upsample(below)


class Step(nn.Module):
    """A residual block, followed by attention where `attended`."""

    def __init__(self, width_in: int, width: int, embedding: int, style: Style, attended: bool) -> None:
        super().__init__()
        self.block = ResidualBlock(width_in, width, embedding, style)
        self.attention = Attention(width, style) if attended else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.attention(self.block(x, e))


class DownLevel(nn.Module):
    """Halve, let the image join, take the steps of one resolution; remember every output."""

    def __init__(self, steps: Sequence[Step], resample: nn.Module | None, path: ImagePath | ImageSkip | None) -> None:
        super().__init__()
        self.steps, self.resample, self.path = nn.ModuleList(steps), resample, path

    def forward(self, h: Tensor, e: Tensor, image: Tensor, seen: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the output and the image path's new value; append to `seen`."""
        if self.resample is not None:
            h = self.resample(h, e)
            if self.path is not None:
                h, image = self.path(h, image)
            seen.append(h)
        for step in self.steps:
            h = step(h, e)
            seen.append(h)
        return h, image


class UpLevel(nn.Module):
    """Take the steps of one resolution, each with one remembered output, make an image (`path`), double."""

    def __init__(self, steps: Sequence[Step], resample: nn.Module | None, path: ImageOut | None) -> None:
        super().__init__()
        self.steps, self.resample, self.path = nn.ModuleList(steps), resample, path

    def forward(self, h: Tensor, e: Tensor, seen: list[Tensor], image: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the output and the sum of the images so far; pop from `seen`."""
        for step in self.steps:
            h = step(torch.cat((h, seen.pop()), dim=1), e)
        image = image if self.path is None else self.path(h, image)
        return (h if self.resample is None else self.resample(h, e)), image


class Encoder(nn.Module):
    """The way down and the middle: (B, C, H, W) -> (B, last width, H / 2^(L-1), W / 2^(L-1)).

    Arguments:
        channels: Channels of the image.
        widths: Channels of each of the L levels, finest first.
        first: Channels after the first convolution.
        blocks: Number of steps per level.
        attended: Whether each level has attention.
        bridge: Whether the middle has attention.
        embedding: Length of the embedding.
        style: The choices of the blocks.
        resampling: "block" (inside residual blocks), "conv", "corner" (a convolution padded on one side), or "mean".
        image_path: How the image joins at every level (NCSN++): "residual" or "skip"; "" for not at all.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        first: int,
        blocks: int,
        attended: Sequence[bool],
        bridge: bool,
        embedding: int,
        style: Style,
        resampling: str,
        image_path: str = "",
    ) -> None:
        super().__init__()
        self.conv_in = conv(channels, first, law=style.law)
        self.outputs = [first]
        self.levels = nn.ModuleList()
        width, styles = first, style.by_level(len(widths))
        for i, target in enumerate(widths):
            move = halve(width, embedding, style, resampling) if i else None
            path: ImagePath | ImageSkip | None = None
            if i and image_path == "residual":
                path = ImagePath(channels if i == 1 else widths[i - 2], width, style)
            elif i and image_path == "skip":
                path = ImageSkip(channels, width, style)
            if i:
                self.outputs.append(width)
            steps = []
            for _ in range(blocks):
                steps.append(Step(width, target, embedding, styles[i], attended[i]))
                width = target
                self.outputs.append(width)
            self.levels.append(DownLevel(steps, move, path))
        self.middle = nn.ModuleList(Step(width, width, embedding, styles[-1], bridge and not k) for k in range(2))

    def forward(
        self, x: Tensor, e: Tensor, joins: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the middle's output and everything remembered on the way, in order.

        Arguments:
            x: Images (B, C, H, W).
            e: Embeddings (B, E).
            joins: Adds to the output of the first layer; None for nothing.
        """
        h, image = self.conv_in(x), x
        h = h if joins is None else joins(h)
        seen = [h]
        for level in self.levels:
            h, image = level(h, e, image, seen)
        for step in self.middle:
            h = step(h, e)
        return h, seen


class Decoder(nn.Module):
    """The way up.

    Arguments:
        widths, blocks, attended, embedding, style, resampling: The same as in `Encoder`.
        outputs: Channels of everything that the encoder remembers.
        last_only: Whether only the last step of an attended level has attention (DDPM++); otherwise every step.
        images: Channels of the image that every level but the finest makes; 0 for none.
    """

    def __init__(
        self,
        widths: Sequence[int],
        blocks: int,
        attended: Sequence[bool],
        embedding: int,
        style: Style,
        resampling: str,
        outputs: Sequence[int],
        last_only: bool,
        images: int = 0,
    ) -> None:
        super().__init__()
        remembered, width, styles = list(outputs), widths[-1], style.by_level(len(widths))
        levels: list[UpLevel] = []
        for i in reversed(range(len(widths))):
            steps = []
            for k in range(blocks + 1):
                here = attended[i] and (k == blocks or not last_only)
                steps.append(Step(width + remembered.pop(), widths[i], embedding, styles[i], here))
                width = widths[i]
            path = ImageOut(width, images, style) if i and images else None
            levels.append(UpLevel(steps, double(width, embedding, style, resampling) if i else None, path))
        self.levels = nn.ModuleList(reversed(levels))  # index 0 = finest, as in the encoder

    def forward(self, h: Tensor, e: Tensor, seen: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return the output at full size, and the sum of the coarser levels' images at half of it, if they make any."""
        image: Tensor | None = None
        for level in reversed(self.levels):
            h, image = level(h, e, seen, image)
        return h, image


class LadderUNet(nn.Module):
    """Embedder, encoder and decoder: network(x, c_noise, label, augment).

    Arguments:
        embedder: Turns noise level, label and augmentation into one vector.
        encoder: The levels from fine to coarse, and the middle.
        decoder: The levels from coarse to fine.
        norm_out: Normalisation before the last convolution.
        conv_out: Convolution from features to the output's channels.
        upsample: Doubles the sum of the images of coarser levels, which then joins the output.
    """

    def __init__(
        self,
        embedder: Embedder,
        encoder: Encoder,
        decoder: Decoder,
        norm_out: nn.Module,
        conv_out: nn.Conv2d,
        upsample: Resample,
    ) -> None:
        super().__init__()
        self.embedder, self.encoder, self.decoder = embedder, encoder, decoder
        self.norm_out, self.conv_out, self.upsample = norm_out, conv_out, upsample

    def forward(self, x: Tensor, c_noise: Tensor, label: Label | None = None, augment: Tensor | None = None) -> Tensor:
        check_ladder(self.encoder, x)
        e = self.embedder(x, c_noise, label, augment)
        h, seen = self.encoder(x, e, lambda h: self.embedder.label.entered(h, label))
        h, image = self.decoder(h, e, seen)
        out = self.conv_out(self.norm_out(h, silu=True))
        return (out if image is None else out + self.upsample(image)).to(x.dtype)


def ladder(
    embedder: Embedder,
    style: Style,
    channels: int,
    out_channels: int,
    widths: Sequence[int],
    first: int,
    blocks: int,
    attended: Sequence[bool],
    bridge: bool,
    resampling: str,
    last_only: bool = False,
    image_path: str = "",
    images_out: bool = False,
    vector: int = 0,
    extra: int = 0,
) -> LadderUNet:
    """Assemble a U-Net; the arguments are those of `Encoder`, `Decoder` and `widened`."""
    embedding = embedder.dense2.out_features
    down = Encoder(channels, widths, first, blocks, attended, bridge, embedding, style, resampling, image_path)
    images = out_channels if images_out else 0
    up = Decoder(widths, blocks, attended, embedding, style, resampling, down.outputs, last_only, images)
    conv_out = conv(widths[0], out_channels, gain=style.zero, law=style.law)
    network = LadderUNet(embedder, down, up, style.norm(widths[0]), conv_out, Resample(up=True, taps=style.taps))
    return widened(network, embedder.label, down.conv_in, vector, extra)


def check_ladder(encoder: Encoder, x: Tensor) -> None:
    """Refuse images whose side the levels cannot halve."""
    halvings = len(encoder.levels) - 1
    check_images(x, encoder.conv_in.in_channels, 2**halvings, f"{halvings} halvings")


def level_widths(width: int, mult: Sequence[float]) -> tuple[int, ...]:
    """Return the channels of each level, `width` times its multiplier."""
    return tuple(round(width * m) for m in mult)


def attended_levels(attention: Sequence[int], size: int, levels: int) -> tuple[bool, ...]:
    """Return whether each level has attention, its side being size / 2^level.

    Arguments:
        attention: Sides with attention at the training size.
        size: Side of the training images, a multiple of 2^(levels - 1).
        levels: Number of levels.

    Raises:
        ValueError: If the size cannot be halved so often, or a side is not one of the network's.
    """
    check_size(size, 2 ** (levels - 1), f"{levels} levels")
    sides = [size >> i for i in range(levels)]
    if unknown := [side for side in attention if side not in sides]:
        raise ValueError(
            f"attention names sides of feature maps; a network of size {size} with {levels} levels has "
            f"{', '.join(map(str, sides))}; got {unknown[0]}."
        )
    return tuple(side in attention for side in sides)
