"""Quantisation: every pixel was rounded to few grey levels. It is not linear, and rounding has no slope.

Gradients pass through the rounding as if it were the identity (the straight-through estimator).

References:
    Bengio, Leonard, Courville. Estimating or Propagating Gradients Through Stochastic Neurons for Conditional
    Computation. 2013. https://arxiv.org/abs/1308.3432
"""

from __future__ import annotations

from torch import Tensor

from sfumato.core.task import Task, TaskError


def quantise(shape: tuple[int, ...], levels: int = 4, noise: float = 0.0) -> Task:
    """Undo the rounding of pixels to few levels.

    Arguments:
        shape: Shape of a picture.
        levels: Evenly spaced in [-1, 1], >= 2.
        noise: Standard deviation added after the rounding.

    Raises:
        TaskError: If there are fewer than two levels.
    """
    if levels < 2:
        raise TaskError(f"quantise needs at least 2 levels; got {levels}.")
    half = (levels - 1) / 2

    def apply(x: Tensor) -> Tensor:
        rounded = ((x.clamp(-1, 1) + 1) * half).round() / half - 1
        return x + (rounded - x).detach()

    return Task("quantise", f"quantise, {levels} levels", tuple(shape), tuple(shape), apply, noise=noise)
