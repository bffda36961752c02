"""Outpainting: only the middle of the picture is seen, and everything around it is to be invented."""

from __future__ import annotations

import torch

from sfumato.core.task import Task, TaskError, image_shape
from sfumato.tasks._masks import masked


def outpaint(shape: tuple[int, ...], seen: float = 0.5, noise: float = 0.0) -> Task:
    """Continue a picture beyond its middle.

    Arguments:
        shape: Shape of the whole picture, (C, H, W).
        seen: Share of the height and of the width that is seen, in (0, 1].
        noise: Standard deviation added to the seen pixels.

    Raises:
        TaskError: If the share is out of range.
    """
    size = image_shape("outpaint", shape)
    if not 0 < seen <= 1:
        raise TaskError(f"outpaint sees a share of the height and width in (0, 1]; got {seen}.")
    hide = torch.ones(size[1:], dtype=torch.bool)
    tall, wide = (max(1, round(seen * length)) for length in size[1:])
    top, left = (size[1] - tall) // 2, (size[2] - wide) // 2
    hide[top : top + tall, left : left + wide] = False
    return masked("outpaint", f"outpaint, the middle {tall}x{wide} seen", size, hide, noise)
