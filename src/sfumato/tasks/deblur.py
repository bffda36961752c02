"""Deblurring: the picture was convolved with a kernel, around the edges (periodically).

The Fourier transform diagonalises such a blur: with K the transform of the kernel, A^T multiplies by conj(K) and
A A^T by |K|^2. Frequencies with |K| below `CUT` are lost to the operator altogether, so that its pseudo-inverse is
bounded by 1 / CUT.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from sfumato.core.task import Task, TaskError, image_shape

CUT = 0.03


def _response(height: int, width: int, kernel: str, radius: float) -> Tensor:
    """Return the real transform of the kernel, shape (height, width // 2 + 1), with small values set to 0."""

    def one(length: int) -> Tensor:
        distance = torch.fft.fftfreq(length, 1 / length, dtype=torch.float64).abs()
        weights = torch.exp(-0.5 * (distance / radius) ** 2) if kernel == "gaussian" else (distance <= radius).double()
        return weights / weights.sum()

    response = torch.fft.rfft2(one(height)[:, None] * one(width)[None, :]).real
    return torch.where(response.abs() < CUT, 0.0, response)


def deblur(
    shape: tuple[int, ...], kernel: Literal["gaussian", "box"] = "gaussian", radius: float = 1.0, noise: float = 0.0
) -> Task:
    """Sharpen a blurred picture.

    Arguments:
        shape: Shape of a picture, (C, H, W).
        kernel: "gaussian" with standard deviation `radius`, or a "box" that reaches `radius` to each side.
        radius: In pixels, > 0.
        noise: Standard deviation added to the blurred picture.

    Raises:
        TaskError: If the radius is not positive.
    """
    size = image_shape("deblur", shape)
    if not radius > 0:
        raise TaskError(f"deblur needs a radius above 0 pixels; got {radius}.")
    if kernel not in ("gaussian", "box"):
        raise TaskError(f"The kernel of deblur is 'gaussian' or 'box'; got {kernel!r}.")
    response = _response(*size[1:], kernel, radius)

    def filtered(x: Tensor, factor: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * factor, s=size[1:])

    def blur(x: Tensor) -> Tensor:  # the kernel is symmetric, so the blur is its own transpose
        return filtered(x, response.to(x))

    def spectral(u: Tensor, g: Callable[[Tensor], Tensor]) -> Tensor:
        return filtered(u, g(response.to(u) ** 2))

    return Task("deblur", f"deblur, {kernel} {radius:g} px", size, size, blur, blur, spectral, noise)
