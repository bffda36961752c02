"""Super-resolution: every f x f pixels were averaged, or one of them was kept.

With the mean, a row of A holds f^2 entries 1 / f^2, so A A^T = I / f^2 and A+ repeats each pixel; with one pixel kept
A A^T = I, and A+ leaves the others at 0.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from sfumato.core.task import Task, TaskError, image_shape, scaled_identity


def superres(
    shape: tuple[int, ...], factor: int = 2, filter: Literal["mean", "nearest"] = "mean", noise: float = 0.0
) -> Task:
    """Enlarge a picture that was made smaller by a whole factor.

    Arguments:
        shape: Shape of the large picture, (C, H, W).
        factor: By which height and width were divided, >= 1.
        filter: What became of factor x factor pixels: their "mean", or the "nearest", the first of them.
        noise: Standard deviation added to the small picture.

    Raises:
        TaskError: If the factor does not divide the size.
    """
    channels, height, width = size = image_shape("superres", shape)
    if factor < 1 or height % factor or width % factor:
        raise TaskError(f"superres needs a factor that divides the size {height}x{width}; got {factor}.")
    if filter not in ("mean", "nearest"):
        raise TaskError(f"The filter of superres is 'mean' or 'nearest'; got {filter!r}.")
    small = (channels, height // factor, width // factor)

    def blocks(x: Tensor) -> Tensor:
        return x.reshape(-1, channels, small[1], factor, small[2], factor)

    def mean(x: Tensor) -> Tensor:
        return blocks(x).mean((3, 5))

    def spread(u: Tensor) -> Tensor:
        wide = u[:, :, :, None, :, None].expand(-1, -1, -1, factor, -1, factor)
        return wide.reshape(-1, *size) / factor**2

    def keep(x: Tensor) -> Tensor:
        return blocks(x)[:, :, :, 0, :, 0]

    def scatter(u: Tensor) -> Tensor:
        blank = u.new_zeros(len(u), channels, small[1], factor, small[2], factor)
        blank[:, :, :, 0, :, 0] = u
        return blank.reshape(-1, *size)

    apply, adjoint, value = (mean, spread, 1 / factor**2) if filter == "mean" else (keep, scatter, 1.0)
    words = f"superres, {small[2]}x{small[1]} to {width}x{height}"
    return Task("superres", words, size, small, apply, adjoint, scaled_identity(value), noise)
