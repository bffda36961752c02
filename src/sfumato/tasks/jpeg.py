"""JPEG-like compression: the cosine transform of 8 x 8 pixels was rounded with JPEG's table of step sizes.

Every channel is treated alike with the luminance table of the standard, without subsampled colours. Gradients pass
through the rounding as if it were the identity; everything else is an orthogonal transform.

References:
    ITU-T. Recommendation T.81 (JPEG). 1992, annex K.1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.core.task import Task, TaskError, image_shape

BLOCK = 8
STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def _cosines() -> Tensor:
    """Return the orthonormal cosine transform of 8 numbers, float64 (8, 8)."""
    n = torch.arange(BLOCK, dtype=torch.float64)
    matrix = (math.pi / BLOCK * n[:, None] * (n + 0.5)).cos() * math.sqrt(2 / BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix


def jpeg(shape: tuple[int, ...], quality: int = 25, noise: float = 0.0) -> Task:
    """Undo JPEG-like compression.

    Arguments:
        shape: Shape of a picture, (C, H, W), of any size: edges are repeated to whole blocks.
        quality: 1 (worst) to 100, as in the reference encoder.
        noise: Standard deviation added to the decoded picture.

    Raises:
        TaskError: If the quality is out of range.
    """
    size = image_shape("jpeg", shape)
    if not 1 <= quality <= 100:
        raise TaskError(f"The quality of jpeg lies in 1..100; got {quality}.")
    percent = 5000 / quality if quality < 50 else 200 - 2 * quality
    steps = (torch.tensor(STEPS, dtype=torch.float64) * percent / 100).round().clamp(1, 255) / 127.5
    cosines = _cosines()
    pad = (0, -size[2] % BLOCK, 0, -size[1] % BLOCK)
    rows, columns = (size[1] + pad[3]) // BLOCK, (size[2] + pad[1]) // BLOCK

    def apply(x: Tensor) -> Tensor:
        matrix, step = cosines.to(x), steps.to(x)
        whole = F.pad(x, pad, mode="replicate")
        blocks = whole.reshape(-1, size[0], rows, BLOCK, columns, BLOCK).transpose(3, 4)
        wave = matrix @ blocks @ matrix.T
        rounded = (wave / step).round() * step
        back = matrix.T @ (wave + (rounded - wave).detach()) @ matrix
        return back.transpose(3, 4).reshape(whole.shape)[:, :, : size[1], : size[2]]

    return Task("jpeg", f"jpeg, quality {quality}", size, size, apply, noise=noise)
