"""DCGAN: a generator and a discriminator made of strided convolutions only.

    G: z -> 4x4 -> 8x8 -> ... -> size     transposed 4x4 convolutions, BatchNorm, ReLU; tanh at the end
    D: size -> ... -> 4x4 -> one logit    4x4 convolutions, BatchNorm (not on the input), LeakyReLU 0.2

The coarsest map has the side that halving leaves: 4 for 32 and 64 pixels, 7 for 28, and the layers that meet it have
kernels of that side. No layer has a bias except the BatchNorms; weights start as N(0, 0.02), gains as N(1, 0.02). A
labelled pair embeds the class: appended to z in G, and repeated over all pixels as extra channels in D. The pair is
one module, so that it is saved, loaded and averaged together.

| images | up | down | latent | G | D |
|---|---|---|---|---|---|
| 64x64 | 512,256,128,64 | 64,128,256,512 | 100 | 3,576,704 | 2,765,568 |
| 32x32 | 256,128,64 | 64,128,256 | 128 | 1,183,616 | 663,296 |
| 32x32, early channels kept | 256,256,64 | 128,128,256 | 128 | 1,839,232 | 797,440 |
| 28x28, one channel | 128,64 | 64,128 | 128 | 935,296 | 138,624 |

References:
    "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks", Radford et al.,
        2016, https://arxiv.org/abs/1511.06434
    "Conditional Generative Adversarial Nets", Mirza and Osindero, 2014, https://arxiv.org/abs/1411.1784
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core import noise

from ._embeddings import LabelTable
from ._layers import check_images

STD = 0.02
SIDES = range(2, 9)  # of the coarsest map: smaller holds no layout, larger needs another layer
Prior = Literal["normal", "uniform"]


def _normal(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Conv2d | nn.ConvTranspose2d:
    nn.init.normal_(layer.weight, std=STD)
    return layer


def _batch_norm(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width)
    nn.init.normal_(norm.weight, mean=1.0, std=STD)
    return norm


class Generator(nn.Module):
    """Make images from latents, (B, latent) -> (B, out_channels, size, size) in (-1, 1).

    Arguments:
        latent: Length of z.
        up: Channels at the coarsest map, at twice its side, ...
        out_channels: Image channels.
        side: Of the coarsest map.
        classes: Number of classes, 0 = unlabelled.
        embedding: Length of the class embedding appended to z.
    """

    def __init__(
        self, latent: int, up: tuple[int, ...], out_channels: int, side: int, classes: int, embedding: int
    ) -> None:
        super().__init__()
        self.latent = latent
        self.label = LabelTable(classes, embedding)
        widths = (latent + (embedding if classes else 0), *up, out_channels)
        self.convs = nn.ModuleList(
            _normal(nn.ConvTranspose2d(a, b, 4 if i else side, stride=2 if i else 1, padding=1 if i else 0, bias=False))
            for i, (a, b) in enumerate(zip(widths, widths[1:]))
        )
        self.norms = nn.ModuleList(_batch_norm(width) for width in up)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(f"This generator takes latents (B, {self.latent}); got {tuple(z.shape)}.")
        row = self.label(label, len(z), z.device)
        h = (z if row is None else torch.cat((z, row.to(z.dtype)), dim=1))[:, :, None, None]
        for layer, norm in zip(self.convs, self.norms):  # the last convolution has no normalisation
            h = F.relu(norm(layer(h)))
        return torch.tanh(self.convs[-1](h)).to(z.dtype)


class Discriminator(nn.Module):
    """Judge images, (B, channels, size, size) -> (B,) logits, positive = real.

    Arguments:
        channels: Image channels.
        down: Channels at size / 2, size / 4, ..., the coarsest map.
        side: Of the coarsest map.
        classes: Number of classes, 0 = unlabelled.
        embedding: Number of channels that carry the class embedding.
    """

    def __init__(self, channels: int, down: tuple[int, ...], side: int, classes: int, embedding: int) -> None:
        super().__init__()
        self.channels, self.side = channels, side * 2 ** len(down)
        self.label = LabelTable(classes, embedding)
        widths = (channels + (embedding if classes else 0), *down)
        self.convs = nn.ModuleList(
            _normal(nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False)) for a, b in zip(widths, down)
        )
        self.norms = nn.ModuleList([nn.Identity(), *(_batch_norm(width) for width in down[1:])])
        self.last = _normal(nn.Conv2d(down[-1], 1, side, bias=False))

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        check_images(x, self.channels, self.side, "the discriminator's size")
        if x.shape[-2:] != (self.side, self.side):
            raise ValueError(f"This discriminator takes images of {self.side}x{self.side}; got {tuple(x.shape[-2:])}.")
        row = self.label(label, len(x), x.device)
        h = x
        if row is not None:
            h = torch.cat((x, row.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[-2:])), dim=1)
        for layer, norm in zip(self.convs, self.norms, strict=True):
            h = F.leaky_relu(norm(layer(h)), 0.2)
        return self.last(h).flatten().to(x.dtype)


class DCGAN(nn.Module):
    """A generator and a discriminator; called as network(z, label) it generates.

    Arguments:
        generator: Makes images.
        discriminator: Judges them.
        prior: Of z: "normal", or "uniform" on (-1, 1).
    """

    def __init__(self, generator: Generator, discriminator: Discriminator, prior: Prior = "normal") -> None:
        super().__init__()
        self.generator, self.discriminator, self.prior = generator, discriminator, prior

    def latents(self, ids: noise.Ids, *, seed: int = 0, device: torch.device | str = "cpu") -> Tensor:
        """Return z of the prior for every id, (B, latent) float32: a function of (seed, id) alone."""
        shape = (self.generator.latent,)
        if self.prior == "normal":
            return noise.normal(ids, shape, seed=seed, purpose="latent", device=device)
        return 2 * noise.uniform(ids, shape, seed=seed, purpose="latent", device=device, dtype=torch.float32) - 1

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.generator(z, label)


def dcgan(
    channels: int = 3,
    classes: int = 0,
    size: int = 32,
    latent: int = 128,
    up: tuple[int, ...] = (256, 128, 64),
    down: tuple[int, ...] = (64, 128, 256),
    embedding: int = 10,
    prior: Prior = "normal",
) -> DCGAN:
    """DCGAN's generator and discriminator, with labels if asked.

    Arguments:
        channels: Image channels, made and judged.
        classes: Number of classes, 0 = unlabelled.
        size: Side of the images: that of the coarsest map, 2 to 8, times 2^len(up) = 2^len(down).
        latent: Length of z.
        up: Channels of the generator at the coarsest map, at twice its side, ...
        down: Channels of the discriminator at size / 2, ..., the coarsest map.
        embedding: Length of the class embedding.
        prior: Of z: "normal", or "uniform" on (-1, 1).

    Raises:
        ValueError: If the layers do not lead to a coarsest map of 2 to 8 pixels, or the prior is unknown.
    """
    if prior not in get_args(Prior):
        raise ValueError(f"prior must be one of {', '.join(get_args(Prior))}; got {prior!r}.")
    for name, layers in (("up", up), ("down", down)):
        side = size / 2 ** len(layers)
        if not layers or side not in SIDES:
            fitting = [n for n in range(1, 10) if size / 2**n in SIDES]
            raise ValueError(
                f"{len(layers)} layers {name} leave size={size} a coarsest map of side {side:g}, which must be a whole "
                f"number from {SIDES[0]} to {SIDES[-1]}. Layers that fit: {', '.join(map(str, fitting)) or 'none'}."
            )
    if len(up) != len(down):
        raise ValueError(f"G and D take as many layers; got {len(up)} up and {len(down)} down.")
    side = size // 2 ** len(up)
    return DCGAN(
        Generator(latent, up, channels, side, classes, embedding),
        Discriminator(channels, down, side, classes, embedding),
        prior,
    )
