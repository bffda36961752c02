"""Exact changes of size and channels for whole uint8 batches.

Each is an integer operation with a stated rounding, so it gives the same bytes on every machine:

* a box mean by a whole factor k averages k x k pixels, (sum + floor(k^2 / 2)) // k^2: to nearest, halves upwards;
* padding puts black (code 0, -1.0 as a float) around the centred image;
* grey from RGB is the luma of ITU-R BT.601 in 16-bit fixed point, L = (19595 R + 38470 G + 7471 B + 32768) >> 16,
  the same bytes as Pillow's; RGB from grey repeats the channel.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LUMA = (19595, 38470, 7471)
CHUNK = 4096  # images at a time, so that 32-bit sums of a whole set are never held at once


def box_mean(images: Tensor, size: int) -> Tensor:
    """Shrink square images by a whole factor, averaging blocks.

    Arguments:
        images: uint8 (N, C, H, H).
        size: New height and width, a divisor of H.

    Returns:
        uint8 (N, C, size, size).

    Raises:
        ValueError: If the images are not square or `size` does not divide their side; valid sizes are named.

    >>> box_mean(torch.tensor([[[[0, 1], [0, 1]]]], dtype=torch.uint8), 1).item()
    1
    """
    n, c, height, width = images.shape
    valid = [d for d in range(1, height + 1) if height % d == 0]
    if height != width or size not in valid:
        raise ValueError(
            f"A box mean shrinks square images by a whole factor; got {height}x{width} to {size}. "
            f"Valid sizes for {height}: {', '.join(map(str, valid))}. To enlarge, use pad={size}."
        )
    k = height // size
    if k == 1:
        return images
    blocks = images.reshape(n, c, size, k, size, k)
    means = [
        ((part.sum(dim=(3, 5), dtype=torch.int32) + k * k // 2) // (k * k)).to(torch.uint8)
        for part in blocks.split(CHUNK)
    ]
    return torch.cat(means)


def pad_black(images: Tensor, size: int) -> Tensor:
    """Centre images on a black square; an odd pixel goes to the right and the bottom.

    Arguments:
        images: uint8 (N, C, H, W).
        size: New height and width, at least the old ones.

    Returns:
        uint8 (N, C, size, size).

    Raises:
        ValueError: If `size` is smaller than the images.
    """
    height, width = images.shape[2:]
    if size < max(height, width):
        raise ValueError(f"Padding cannot shrink {height}x{width} images to {size}. Use size= to shrink.")
    left, top = (size - width) // 2, (size - height) // 2
    return functional.pad(images, (left, size - width - left, top, size - height - top))


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Turn RGB into grey or grey into RGB.

    Arguments:
        images: uint8 (N, C, H, W).
        channels: 1 or 3, or C to leave them as they are.

    Returns:
        uint8 (N, channels, H, W).

    Raises:
        ValueError: If no rule leads from C channels to `channels`.
    """
    have = images.shape[1]
    if have == channels:
        return images
    if (have, channels) == (1, 3):
        return images.expand(-1, 3, -1, -1).contiguous()
    if (have, channels) == (3, 1):
        weights = torch.tensor(LUMA, dtype=torch.int32)[:, None, None]
        grey = [((part * weights).sum(1, keepdim=True) + 32768) >> 16 for part in images.split(CHUNK)]
        return torch.cat(grey).to(torch.uint8)
    raise ValueError(f"No rule turns {have} channels into {channels}; the known ones are 1 to 3 and 3 to 1.")
