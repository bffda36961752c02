"""The space in which a sampler walks, and how what it holds becomes images: pixels themselves, or latents.

A walk in latents ends at a latent, which is decoded. On the way there a state lies at a level (alpha, sigma); it is
shown as the latent on the unit circle would be decoded, scaled back, so that a strip of a latent model looks like one
of a pixel model: noise at one end, an image at the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sfumato.core.level import Level, like
from sfumato.latent.autoencoder import Autoencoder

Shape = tuple[int, int, int]


class Space(Protocol):
    """What a maker of images needs to know of the space that its sampler walks."""

    @property
    def shape(self) -> Shape:
        """The shape of one point of it, (c, h, w)."""
        ...

    @property
    def image(self) -> Shape:
        """The shape of one image, (C, H, W)."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """Return the points of float images."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Return the float images of clean points."""
        ...

    def picture(self, x: Tensor, level: Level) -> Tensor:
        """Return noisy points at a level as they are shown: images of the same level."""
        ...


@dataclass(frozen=True, eq=False)
class Pixels:
    """The space of images themselves.

    Attributes:
        shape: Shape of one image, (C, H, W).
    """

    shape: Shape

    @property
    def image(self) -> Shape:
        """Shape of one image."""
        return self.shape

    def encode(self, images: Tensor) -> Tensor:
        """Return the images."""
        return images

    def decode(self, z: Tensor) -> Tensor:
        """Return the images."""
        return z

    def picture(self, x: Tensor, level: Level) -> Tensor:
        """Return the noisy images."""
        return x


@dataclass(frozen=True, eq=False)
class Latents:
    """The latents of an autoencoder, shifted and scaled channel by channel to mean 0 and variance 1.

    Attributes:
        autoencoder: Encodes and decodes.
        shape: Shape of one latent, (c, h, w).
        image: Shape of one image, (C, H, W).
        shift: Mean of each channel, taken away; () for none.
        scale: Standard deviation of each channel, divided by; () for 1.
    """

    autoencoder: Autoencoder
    shape: Shape
    image: Shape
    shift: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def standardised(self, latents: Tensor) -> Tensor:
        """Return latents of the encoder as the sampler knows them."""
        return (latents - self._each(self.shift, 0.0, latents)) / self._each(self.scale, 1.0, latents)

    def encode(self, images: Tensor) -> Tensor:
        """Return the latents of float images: the means of their posteriors."""
        return self.standardised(self.autoencoder.encode(images).mean)

    def decode(self, z: Tensor) -> Tensor:
        """Return the float images of latents, not clipped."""
        return self.autoencoder.decode(z * self._each(self.scale, 1.0, z) + self._each(self.shift, 0.0, z))

    def picture(self, x: Tensor, level: Level) -> Tensor:
        """Return images decoded from noisy latents on the unit circle, scaled back to their level."""
        radius = like(torch.hypot(level.alpha, level.sigma), x)
        with torch.no_grad():
            return radius * self.decode(x / radius)

    def _each(self, values: tuple[float, ...], default: float, z: Tensor) -> Tensor:
        return torch.tensor(values or [default], dtype=z.dtype, device=z.device).reshape(-1, 1, 1)
