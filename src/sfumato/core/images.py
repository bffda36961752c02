"""The second narrow waist: everything that makes images meets everything that judges them at `ImageSource`.

A diffusion model with a sampler, a GAN, a folder of images and a data split are all image sources,
``(seeds, labels) -> uint8 images``. So the distance between two real splits, the floor that every score is printed
beside, is the same call as the distance of a model.

Images are float in [-1, 1] inside and uint8 only here. The conversion matters: rounding, ``(x * 127.5 + 128)`` cut to
an integer, is exact for all 256 codes; the truncating ``(x + 1) * 127.5`` of several references darkens the picture
by half a level. It exists under its name for comparison with scores that used it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sfumato.core.condition import Label

QUANTISATIONS = ("round", "truncate")
SCALE = 8.0  # floats above are no pixels in [-1, 1], nor those with the noise of a measurement


class NonFiniteError(ValueError):
    """Images contain NaN or infinity, which a cast would silently turn into valid pixels."""


class ImageSource(Protocol):
    """Make images from seeds.

    Arguments:
        seeds: One integer per image; the same seed gives the same image in any batch.
        labels: int64 (B,), NULL for no class, or a `Condition`; None for no classes at all.

    Returns:
        uint8, shape (B, C, H, W).
    """

    def __call__(self, seeds: Sequence[int], labels: Label | None = None) -> Tensor: ...


def to_float(images: Tensor) -> Tensor:
    """Map uint8 codes 0..255 onto [-1, 1], float32: ``x / 127.5 - 1``."""
    if images.dtype != torch.uint8:
        raise TypeError(f"to_float takes uint8 images; got {images.dtype}.")
    return images.to(torch.float32) / 127.5 - 1


def in_floats(images: Tensor | np.ndarray) -> Tensor:
    """Return a person's images as floats: codes through `to_float`, floats in [-1, 1] as they are.

    Arguments:
        images: uint8 or float, any shape, a tensor or an array of NumPy. A measurement may leave [-1, 1] by its noise,
            so only what is far outside is taken for another scale.

    Raises:
        ValueError: For another type, or floats of another scale.
    """
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.array(images, order="C"))  # a copy: it may be turned round, or read-only
        images = images.float() if images.is_floating_point() else images
    if images.dtype == torch.uint8:
        return to_float(images)
    if not images.is_floating_point():
        raise ValueError(f"Images are uint8 in [0, 255] or floats in [-1, 1]; got {images.dtype}.")
    if images.numel() and images.abs().max() > SCALE:
        raise ValueError(
            f"Images in floats lie in [-1, 1]; got {images.min():.3g} to {images.max():.3g}. Give uint8, or divide by "
            "127.5 and subtract 1."
        )
    return images


def finite(images: Tensor) -> Tensor:
    """Return which images are wholly finite: bool, shape (B,)."""
    return images.isfinite().flatten(1).all(1)


def to_uint8(images: Tensor, quantisation: str = "round") -> Tensor:
    """Quantise float images in [-1, 1] to uint8; values outside are clipped.

    Arguments:
        images: Float, shape (B, ...).
        quantisation: "round" (exact), or "truncate" (compatibility with references that truncate (x + 1) * 127.5).

    Raises:
        NonFiniteError: If any image holds NaN or infinity; the message counts them.

    >>> codes = torch.arange(256, dtype=torch.uint8)
    >>> bool((to_uint8(to_float(codes)) == codes).all())
    True
    """
    if quantisation not in QUANTISATIONS:
        raise ValueError(f"Unknown quantisation {quantisation!r}. Available: {', '.join(QUANTISATIONS)}.")
    if not torch.isfinite(images).all():
        bad = (~finite(images.unsqueeze(1) if images.ndim == 1 else images)).nonzero().flatten().tolist()
        raise NonFiniteError(
            f"{len(bad)} of {len(images)} images hold NaN or infinity (positions {bad[:8]}). "
            "Nothing was written; look at the checkpoint, the sampler's step count and the guidance weight."
        )
    if quantisation == "truncate":
        return ((images + 1) * 127.5).clamp(0, 255).to(torch.uint8)
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def planes(images: Tensor) -> Tensor:
    """Return images (B, C, H, W) as they are drawn: of 1 or 3 channels, else each channel in grey, side by side.

    >>> planes(torch.zeros(2, 5, 8, 8)).shape, planes(torch.zeros(2, 3, 8, 8)).shape
    (torch.Size([2, 1, 8, 40]), torch.Size([2, 3, 8, 8]))
    """
    return images if images.shape[1] in (1, 3) else images.transpose(1, 2).flatten(2).unsqueeze(1)


def tile(images: Tensor, columns: int, gap: int = 2) -> np.ndarray:
    """Lay images out in rows of `columns`, with a white gap between them.

    Arguments:
        images: uint8, shape (B, C, H, W); drawn as `planes` says.
        columns: Images per row.
        gap: Pixels between images and around them.

    Returns:
        uint8 array (height, width, 3) for C = 3, else (height, width), as Pillow takes it.
    """
    images = planes(images)
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = torch.full((channels, rows * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=torch.uint8)
    for i, image in enumerate(images):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    array = sheet.permute(1, 2, 0).numpy()
    return array[:, :, 0] if channels == 1 else array


def untile(sheet: Tensor, height: int, width: int, gap: int = 2) -> tuple[Tensor, int]:
    """Return the images that `tile` has laid out, and how many stand in a row.

    Arguments:
        sheet: uint8, shape (C, H, W).
        height: Height of one image in pixels.
        width: Width of one image in pixels.
        gap: Pixels between images and around them.

    Returns:
        The images, shape (B, C, height, width), and the number of columns.

    Raises:
        ValueError: If the sheet does not consist of such images.

    >>> sheet = torch.randint(0, 256, (6, 3, 4, 5), dtype=torch.uint8)
    >>> images, columns = untile(torch.from_numpy(tile(sheet, 2)).permute(2, 0, 1), 4, 5)
    >>> torch.equal(images, sheet), columns
    (True, 2)
    """
    high, wide = sheet.shape[1] - gap, sheet.shape[2] - gap
    if min(high, wide) <= 0 or high % (height + gap) or wide % (width + gap):
        raise ValueError(f"A sheet of {high + gap}x{wide + gap} pixels holds no rows of {height}x{width} images.")
    rows = sheet[:, gap:, gap:].unfold(1, height, height + gap).unfold(2, width, width + gap)
    return rows.permute(1, 2, 0, 3, 4).flatten(0, 1), rows.shape[2]
