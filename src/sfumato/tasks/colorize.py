"""Colourisation: only the grey of a picture is known, a weighted sum w of its channels, so A A^T = |w|^2 I.

References:
    ITU-R. Recommendation BT.601. 2011 (the weights of "luma").
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sfumato.core.task import Task, TaskError, image_shape, scaled_identity

WEIGHTS = {"luma": (0.299, 0.587, 0.114), "mean": (1 / 3, 1 / 3, 1 / 3)}


def colorize(shape: tuple[int, ...], grey: Literal["luma", "mean"] = "luma", noise: float = 0.0) -> Task:
    """Give a grey picture its colours.

    Arguments:
        shape: Shape of a picture, (3, H, W).
        grey: How grey was made: "luma" weighs the channels as television does, "mean" weighs them alike.
        noise: Standard deviation added to the grey picture.

    Raises:
        TaskError: If the pictures do not have three channels.
    """
    channels, height, width = size = image_shape("colorize", shape)
    if channels != 3:
        raise TaskError(f"colorize needs pictures of three channels; these have {channels}.")
    if grey not in WEIGHTS:
        raise TaskError(f"The grey of colorize is one of {', '.join(WEIGHTS)}; got {grey!r}.")
    weights = torch.tensor(WEIGHTS[grey], dtype=torch.float64).reshape(1, 3, 1, 1)

    def apply(x: Tensor) -> Tensor:
        return (weights.to(x) * x).sum(1, keepdim=True)

    def adjoint(u: Tensor) -> Tensor:
        return weights.to(u) * u

    square = scaled_identity(float((weights**2).sum()))
    return Task("colorize", "colorize", size, (1, height, width), apply, adjoint, square, noise)
