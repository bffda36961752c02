"""Name an image by its pixels: sha256 over its shape and decoded codes, never over a file, its name or its codec."""

from __future__ import annotations

import hashlib

import numpy as np
from torch import Tensor


def hash_image(pixels: np.ndarray) -> bytes:
    """Hash one image by its shape and its decoded pixels.

    Arguments:
        pixels: uint8 (C, H, W).

    Returns:
        The 32 bytes of sha256("CxHxW" + pixels in C order).
    """
    return hashlib.sha256("x".join(map(str, pixels.shape)).encode() + np.ascontiguousarray(pixels).tobytes()).digest()


def hash_images(images: Tensor | np.ndarray) -> np.ndarray:
    """Hash every image of a batch.

    Arguments:
        images: uint8 (N, C, H, W).

    Returns:
        uint8 (N, 32), row i the sha256 of image i (see `hash_image`).
    """
    array = np.ascontiguousarray(images.numpy() if isinstance(images, Tensor) else images)
    joined = b"".join(hash_image(pixels) for pixels in array)
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, 32).copy()
