"""Denoising: every pixel is seen, with noise. Then p(x0 | y) is what the denoiser itself knows at sigma / alpha = s."""

from __future__ import annotations

from torch import Tensor

from sfumato.core.task import Task, scaled_identity


def denoise(shape: tuple[int, ...], noise: float = 0.25) -> Task:
    """Remove Gaussian noise from a picture.

    Arguments:
        shape: Shape of a picture.
        noise: Its standard deviation, for pixels in [-1, 1].
    """

    def same(x: Tensor) -> Tensor:
        return x

    return Task(
        "denoise", f"denoise, s = {noise:g}", tuple(shape), tuple(shape), same, same, scaled_identity(1.0), noise
    )
