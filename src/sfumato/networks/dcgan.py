"""DCGAN: a generator and a discriminator made of strided convolutions only.

    G: z -> 4x4 -> 8x8 -> ... -> size     transposed 4x4 convolutions, BatchNorm, ReLU; tanh at the end
    D: size -> ... -> 4x4 -> one logit    4x4 convolutions, BatchNorm (not on the input), LeakyReLU 0.2

A side is half of the next, rounded up: 14 pixels have maps of 7 and 4. Kernels are 4 wide where the larger side of a
layer is even and 3 where it is odd, so that D meets every pixel that G makes; those that meet the coarsest map have its
side. No layer has a bias except the BatchNorms; weights start as N(0, 0.02), gains as N(1, 0.02). A
labelled pair embeds the class: appended to z in G, and repeated over all pixels as extra channels in D, or joined to
D's features at the end by a projection. D may have layers of spectral norm 1 in place of BatchNorm, or neither
(`_spectral`); they then have biases. The pair is one module, so that it is saved, loaded and averaged together.

| images | up | down | latent | G | D |
|---|---|---|---|---|---|
| 64x64 | 512,256,128,64 | 64,128,256,512 | 100 | 3,576,704 | 2,765,568 |
| 32x32 | 256,128,64 | 64,128,256 | 128 | 1,183,616 | 663,296 |
| 32x32, early channels kept | 256,256,64 | 128,128,256 | 128 | 1,839,232 | 797,440 |
| 28x28, one channel | 128,64 | 64,128 | 128 | 935,296 | 138,624 |
| 14x14, one channel | 128,64 | 64,128 | 128 | 337,280 | 77,056 |

References:
    "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks", Radford et al.,
        2016, https://arxiv.org/abs/1511.06434
    "Conditional Generative Adversarial Nets", Mirza and Osindero, 2014, https://arxiv.org/abs/1411.1784
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core import noise
from sfumato.core.bounds import Size

from ._embeddings import LabelTable
from ._layers import check_images
from ._spectral import Projection, SpectralConv

STD = 0.02
SIDES = range(2, 9)  # of the coarsest map: smaller holds no layout, larger needs another layer
Prior = Literal["normal", "uniform"]


def _normal(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Conv2d | nn.ConvTranspose2d:
    nn.init.normal_(layer.weight, std=STD)
    return layer


def _sides(size: int, layers: int) -> list[int]:
    """Return the sides of the maps, the images' own first.

    >>> _sides(14, 2)
    [14, 7, 4]
    """
    sides = [size]
    for _ in range(layers):
        sides.append((sides[-1] + 1) // 2)
    return sides


def _kernel(side: int) -> int:
    """Return the width of the kernel between a map of a side and the next coarser one."""
    return 3 if side % 2 else 4


def _batch_norm(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width)
    nn.init.normal_(norm.weight, mean=1.0, std=STD)
    return norm


@dataclass(frozen=True)
class Norm:
    """How a discriminator's layers are normalised.

    Attributes:
        layer: Makes a convolution.
        after: Makes what follows a convolution of a width.
        bias: Whether a convolution has a bias.
    """

    layer: Callable[..., nn.Conv2d]
    after: Callable[[int], nn.Module]
    bias: bool = True


NORMS = {
    "batch": Norm(nn.Conv2d, _batch_norm, bias=False),
    "spectral": Norm(SpectralConv, lambda width: nn.Identity()),
    "plain": Norm(nn.Conv2d, lambda width: nn.Identity()),
}


def check_prior(prior: str) -> None:
    """Refuse an unknown distribution of z."""
    if prior not in get_args(Prior):
        raise ValueError(f"prior must be one of {', '.join(get_args(Prior))}; got {prior!r}.")


class Generator(nn.Module):
    """Make images from latents, (B, latent) -> (B, out_channels, size, size) in (-1, 1).

    Arguments:
        latent: Length of the latent z.
        up: Channels at the coarsest map, the next, ...
        out_channels: Channels of the images.
        sides: Height and width of each feature map in pixels, the images' own first.
        classes: Number of classes, 0 = unlabelled.
        embedding: Length of the class embedding appended to z.
    """

    def __init__(
        self, latent: int, up: tuple[int, ...], out_channels: int, sides: list[int], classes: int, embedding: int
    ) -> None:
        super().__init__()
        self.latent = latent
        self.label = LabelTable(classes, embedding)
        *finer, coarsest = sides
        widths = (latent + (embedding if classes else 0), *up, out_channels)
        first = _normal(nn.ConvTranspose2d(widths[0], widths[1], coarsest, bias=False))
        rest = (
            _normal(nn.ConvTranspose2d(a, b, _kernel(side), stride=2, padding=1, bias=False))
            for (a, b), side in zip(pairwise(widths[1:]), reversed(finer), strict=True)
        )
        self.convs = nn.ModuleList([first, *rest])
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
        channels: Channels of the images.
        down: Channels at the first map, at the next, ..., at the coarsest.
        sides: Height and width of each feature map in pixels, the images' own first.
        classes: Number of classes, 0 = unlabelled.
        embedding: Number of channels that carry the class embedding; 0 for a projection of the last features.
        norm: The layers' kind, and what follows them.
    """

    def __init__(
        self, channels: int, down: tuple[int, ...], sides: list[int], classes: int, embedding: int, norm: Norm
    ) -> None:
        super().__init__()
        self.channels, self.side = channels, sides[0]
        self.label = LabelTable(classes if embedding else 0, embedding)
        widths = (channels + (embedding if classes else 0), *down)
        self.convs = nn.ModuleList(
            _normal(norm.layer(a, b, _kernel(side), stride=2, padding=1, bias=norm.bias))
            for a, b, side in zip(widths, down, sides)
        )
        self.norms = nn.ModuleList([nn.Identity(), *(norm.after(width) for width in down[1:])])
        self.last = _normal(norm.layer(down[-1], 1, sides[-1], bias=False))
        self.project = None if embedding else Projection(classes, down[-1], norm.layer is SpectralConv)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        check_images(x, self.channels, self.side, "the discriminator's size")
        if x.shape[-2:] != (self.side, self.side):
            raise ValueError(f"This discriminator takes images of {self.side}x{self.side}; got {tuple(x.shape[-2:])}.")
        row = self.label(label, len(x), x.device) if self.project is None else None
        h = x
        if row is not None:
            h = torch.cat((x, row.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[-2:])), dim=1)
        for layer, norm in zip(self.convs, self.norms, strict=True):
            h = F.leaky_relu(norm(layer(h)), 0.2)
        logit = self.last(h).flatten()
        return (logit if self.project is None else self.project(logit, h.sum(dim=(2, 3)), label)).to(x.dtype)


class DCGAN(nn.Module):
    """A generator and a discriminator; called as network(z, label) it generates.

    Arguments:
        generator: Network (z, label) -> images, which knows the length `latent` of z.
        discriminator: Network (images, label) -> logits, positive = real.
        prior: Distribution of z, "normal" or "uniform" on (-1, 1).
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module, prior: Prior = "normal") -> None:
        super().__init__()
        self.generator, self.discriminator, self.prior = generator, discriminator, prior

    def latents(self, ids: noise.Ids, *, seed: int = 0, device: torch.device | str = "cpu") -> Tensor:
        """Return z of the prior for every id, (B, latent) float32: a function of (seed, id) alone."""
        shape = (int(self.generator.latent),)  # type: ignore[arg-type]
        if self.prior == "normal":
            return noise.normal(ids, shape, seed=seed, purpose="latent", device=device)
        return 2 * noise.uniform(ids, shape, seed=seed, purpose="latent", device=device, dtype=torch.float32) - 1

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        made: Tensor = self.generator(z, label)
        return made


def dcgan(
    channels: int = 3,
    classes: int = 0,
    size: int = 32,
    latent: Size = 128,
    up: tuple[Size, ...] = (256, 128, 64),
    down: tuple[Size, ...] = (64, 128, 256),
    embedding: Size = 10,
    prior: Prior = "normal",
    norm: str = "batch",
    projection: bool = False,
) -> DCGAN:
    """DCGAN's generator and discriminator, with labels if asked.

    Arguments:
        channels: Image channels, made and judged.
        classes: Number of classes, 0 = unlabelled.
        size: Side of the images; halved len(up) = len(down) times, rounding up, it leaves a coarsest map of 2 to 8.
        latent: Length of the latent z.
        up: Channels of the generator at the coarsest map, at the next, ...
        down: Channels of the discriminator at the first map, at the next, ..., at the coarsest.
        embedding: Length of the class embedding.
        prior: Distribution of z, "normal" or "uniform" on (-1, 1).
        norm: Normalisation in the discriminator: batch, spectral (layers of spectral norm 1), or plain (none).
        projection: Whether the discriminator judges the class by a projection of its last features.

    Raises:
        ValueError: If the layers do not lead to a coarsest map of 2 to 8 pixels, or the prior or norm is unknown.
    """
    check_prior(prior)
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}; got {norm!r}.")
    for name, layers in (("up", up), ("down", down)):
        side = _sides(size, len(layers))[-1]
        if not layers or side not in SIDES:
            fitting = [n for n in range(1, 10) if _sides(size, n)[-1] in SIDES]
            raise ValueError(
                f"{len(layers)} layers {name} leave size={size} a coarsest map of side {side}, which must be from "
                f"{SIDES[0]} to {SIDES[-1]}. Layers that fit: {', '.join(map(str, fitting)) or 'none'}."
            )
    if len(up) != len(down):
        raise ValueError(f"G and D take as many layers; got {len(up)} up and {len(down)} down.")
    sides = _sides(size, len(up))
    return DCGAN(
        Generator(latent, up, channels, sides, classes, embedding),
        Discriminator(channels, down, sides, classes, 0 if projection else embedding, NORMS[norm]),
        prior,
    )
