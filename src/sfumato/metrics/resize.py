"""Resizing in front of a feature network.  The mode is part of the metric: scores of different modes do not compare.

    tf1         bilinear without half-pixel centres and without antialias, as the network's original graph:
                src = dst * (in/out),  lo = floor(src),  hi = min(lo + 1, in - 1);  float32, columns first, then rows
    half_pixel  bilinear with half-pixel centres:  src = (dst + 1/2) in/out - 1/2
    clean       bicubic with antialias by Pillow, in float, channel by channel

On noise, tf1 and half_pixel differ by tens of grey levels a pixel at 32 -> 299.

References:
    Parmar, Zhang, Zhu. On Aliased Resizing and Surprising Subtleties in GAN Evaluation. 2022.
        https://arxiv.org/abs/2104.11222
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional


def tf1(images: Tensor, size: int) -> Tensor:
    """Resize as TensorFlow 1 does; exact on CPU.

    Arguments:
        images: float32 (B, C, H, W).
        size: Side of the square result.

    Returns:
        float32 (B, C, size, size).
    """
    rows, columns = (_taps(length, size, images.device) for length in images.shape[2:])
    low, high, share = columns
    left = images[..., low]
    wide = left + (images[..., high] - left) * share
    low, high, share = rows
    top = wide[..., low, :]
    return top + (wide[..., high, :] - top) * share[:, None]


def _taps(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    source = np.arange(size, dtype=np.float32) * (np.float32(length) / np.float32(size))
    low = np.floor(source).astype(np.int64)
    high = np.minimum(low + 1, length - 1)
    share = source - low.astype(np.float32)
    return (torch.from_numpy(low).to(device), torch.from_numpy(high).to(device), torch.from_numpy(share).to(device))


def half_pixel(images: Tensor, size: int) -> Tensor:
    """Resize bilinearly with half-pixel centres; arguments as in `tf1`."""
    return functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def clean(images: Tensor, size: int) -> Tensor:
    """Resize by Pillow's bicubic filter in float; arguments as in `tf1`. Values may leave 0..255."""
    flat = images.cpu().numpy().reshape(-1, *images.shape[2:])
    wide = [np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC)) for plane in flat]
    return torch.from_numpy(np.stack(wide)).reshape(*images.shape[:2], size, size).to(images.device)


RESIZES: dict[str, Callable[[Tensor, int], Tensor]] = {"tf1": tf1, "half_pixel": half_pixel, "clean": clean}
"""The modes by name."""
