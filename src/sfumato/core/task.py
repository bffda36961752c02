"""A task: what happened to a picture before it was measured, ``y = A x0 + s z`` with z ~ N(0, I).

Restoring a picture is drawing from p(x0 | y). What a method needs of the operator A is small: apply it, apply its
transpose, and apply a function of A A^T, the Gram operator of the measurements,

    apply(x)            A x
    adjoint(u)          A^T u
    spectral(u, g)      g(A A^T) u

From the last follow the pseudo-inverse ``A+ = A^T (A A^T)+``, the projection ``A+ A`` onto what is seen, and the
solution of ``(r2 A A^T + s^2 I) u = b``, each in closed form. For a mask A A^T = I; for the means of f x f pixels it is
I / f^2; for a blur it is diagonal in Fourier space. A nonlinear task has neither adjoint nor spectrum: it is a function
that gradients pass through.

References:
    Kawar et al. Denoising Diffusion Restoration Models. 2022. https://arxiv.org/abs/2201.11793
    Wang, Yu, Zhang. Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model. 2023, section 3.
    https://arxiv.org/abs/2212.00490
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core.images import finite
from sfumato.core.noise import normal

Spectral = Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]


class TaskError(ValueError):
    """A task that does not fit the picture, or a method that does not fit the task."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One operator for pictures of one shape.

    Attributes:
        name: Its entry's name.
        words: What it does with its options, for captions.
        shape: Shape of one clean picture, usually (C, H, W).
        measured: Shape of one measurement.
        apply: Clean pictures (B, *shape) -> measurements (B, *measured), differentiable.
        adjoint: Measurements -> pictures, the transpose of `apply`; None for a nonlinear task.
        spectral: (u, g) -> g(A A^T) u, where g maps the eigenvalues, a tensor that broadcasts against u, to factors;
            None for a nonlinear task.
        noise: Standard deviation s of the measurement's noise, >= 0, in units of pixels in [-1, 1].

    Raises:
        TaskError: If the noise is negative or not finite.
    """

    name: str
    words: str
    shape: tuple[int, ...]
    measured: tuple[int, ...]
    apply: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor] | None = None
    spectral: Spectral | None = None
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.noise < math.inf):
            raise TaskError(f"The noise of {self.name} is a standard deviation >= 0; got {self.noise}.")

    @property
    def linear(self) -> bool:
        """Whether A is a matrix."""
        return self.adjoint is not None

    @property
    def blind(self) -> bool:
        """Whether nothing is measured, so that the posterior is the prior."""
        return math.prod(self.measured) == 0

    def measure(self, x0: Tensor, z: Tensor | None = None) -> Tensor:
        """Return ``A x0 + s z``.

        Arguments:
            x0: Clean pictures, shape (B, *shape).
            z: Unit normal noise, shape (B, *measured); needed if s > 0.
        """
        y = self.apply(x0)
        return y if z is None or self.noise == 0 else y + self.noise * z

    def transpose(self, u: Tensor) -> Tensor:
        """Return ``A^T u``, shape (B, *shape).

        Raises:
            TaskError: For a nonlinear task.
        """
        return self._matrix()[0](u)

    def gram(self, u: Tensor, g: Callable[[Tensor], Tensor]) -> Tensor:
        """Return ``g(A A^T) u``, shape (B, *measured).

        Raises:
            TaskError: For a nonlinear task.
        """
        return self._matrix()[1](u, g)

    def pinv(self, u: Tensor, g: Callable[[Tensor], Tensor] = torch.ones_like) -> Tensor:
        """Return ``A+ g(A A^T) u``, shape (B, *shape): the smallest picture that explains u, if g = 1.

        Raises:
            TaskError: For a nonlinear task.
        """

        def inverse(values: Tensor) -> Tensor:
            positive = values > 0
            return torch.where(positive, g(values) / torch.where(positive, values, 1.0), 0.0)

        return self.transpose(self.gram(u, inverse))

    def seen(self, x: Tensor) -> Tensor:
        """Return ``A+ A x``, the part of pictures that the measurement determines."""
        return self.pinv(self.apply(x))

    def open(self) -> Tensor:
        """Return which pixels the measurement leaves open, bool of the picture's shape: A+ A x = x nowhere else.

        All of them if the measurement is noisy or the task nonlinear.
        """
        if not self.linear or self.noise > 0:
            return torch.ones(self.shape, dtype=torch.bool)
        probe = normal([0], self.shape, purpose="probe", dtype=torch.float64)
        return ((self.seen(probe) - probe).abs() > 1e-9)[0]

    def picture(self, y: Tensor) -> Tensor:
        """Return measurements as pictures (B, *shape) to look at: themselves if they have the shape, else A+ y."""
        return y if self.measured == self.shape else self.pinv(y)

    def _matrix(self) -> tuple[Callable[[Tensor], Tensor], Spectral]:
        if self.adjoint is None or self.spectral is None:
            raise TaskError(f"{self.name} is not linear, so it has no transpose and no pseudo-inverse. Use method dps.")
        return self.adjoint, self.spectral


def scaled_identity(value: float) -> Spectral:
    """Return the spectrum of an operator whose rows are orthogonal and of one length: A A^T = value I."""
    return lambda u, g: g(torch.full((), value, dtype=u.dtype, device=u.device)) * u


def image_shape(name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (channels, height, width) of a shape that must be an image's.

    Raises:
        TaskError: For another number of dimensions.
    """
    if len(shape) != 3:
        raise TaskError(f"{name} works on images of shape (C, H, W); got {shape}.")
    return shape[0], shape[1], shape[2]


def check_pictures(task: Task, images: Tensor) -> None:
    """Refuse pictures that a task was not made for.

    Raises:
        TaskError: If the pictures have another shape, or hold NaN, or there is none.
    """
    if images.ndim and not len(images):
        raise TaskError("There must be at least one picture; got none.")
    if tuple(images.shape[1:]) != task.shape:
        raise TaskError(
            f"The model makes pictures of shape {task.shape} (channels, height, width); got "
            f"{tuple(images.shape[1:])}. Resize or convert them."
        )
    if not bool(finite(images).all()):
        raise TaskError(f"{int((~finite(images)).sum())} of {len(images)} pictures hold NaN or infinity.")
