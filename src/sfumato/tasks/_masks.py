"""Which pixels a mask hides, from a word, a box, a share or a picture."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

from sfumato.core.find import conform, parse
from sfumato.core.noise import uniform
from sfumato.core.task import Task, TaskError, scaled_identity

Mask = Tensor | np.ndarray | str | tuple[int, int, int, int]
RULE = (
    'A mask is "half" (the lower half is hidden), "random 30%", a box top,left,height,width, or a picture of the '
    "image's size whose white pixels are hidden"
)


def hidden(mask: Mask, height: int, width: int, seed: int = 0) -> Tensor:
    """Return which pixels are hidden, bool (height, width).

    Arguments:
        mask: "half", "random P%", a box (top, left, height, width) in pixels, or a tensor or array of NumPy (height,
            width), where True (or a value above 127 of uint8, above 0.5 of any other type) hides.
        height: Pixels from top to bottom of the image.
        width: Pixels from left to right.
        seed: Seed of the choice of random pixels.

    Raises:
        TaskError: For a mask of another size or of numbers that are too small to hide anything, a box outside the
            image, or a word that is none of these.
    """
    if isinstance(mask, np.ndarray):
        mask = torch.from_numpy(np.array(mask, order="C"))  # a copy: it may be turned round, or read-only
    if isinstance(mask, str) and re.fullmatch(r"\s*\d+(\s*,\s*\d+){3}\s*", mask):
        mask = parse(mask)
    if isinstance(mask, Tensor):
        if mask.shape != (height, width):
            raise TaskError(
                f"A mask has the size of the image, {width}x{height}; got {tuple(reversed(mask.shape))} (width, "
                "height). Resize it with nearest neighbours, or draw it at this size."
            )
        if mask.dtype == torch.bool:
            return mask
        least = 127 if mask.dtype == torch.uint8 else 0.5
        found = mask > least
        if bool(mask.any()) and not bool(found.any()):
            raise TaskError(
                f"This mask marks no pixel: its largest value is {mask.max().item():g}, and those above {least:g} are "
                f"marked. Paint what is meant in white ({255 if least > 1 else 1}), or give a bool tensor."
            )
        return found
    found = torch.zeros(height, width, dtype=torch.bool)
    if not isinstance(mask, str):
        box = conform("A box top,left,height,width", mask, tuple[int, int, int, int])
        top, left, tall, wide = box
        if min(box) < 0 or top + tall > height or left + wide > width:
            raise TaskError(f"A box top,left,height,width lies inside the image of {height}x{width}; got {box}.")
        found[top : top + tall, left : left + wide] = True
        return found
    if mask == "half":
        found[height // 2 :] = True
        return found
    share = re.fullmatch(r"random[ -]?(\d+(?:\.\d+)?)%?", mask.strip())
    if share is None or float(share[1]) > 100:
        raise TaskError(f"{RULE}; got {mask!r}.")
    order = uniform([seed], (height * width,), purpose="mask")[0].argsort()
    found.view(-1)[order[: round(float(share[1]) / 100 * height * width)]] = True
    return found


def masked(name: str, words: str, shape: tuple[int, int, int], hide: Tensor, noise: float) -> Task:
    """Make the task that sees the pixels that are not hidden, as one row of numbers a picture.

    Arguments:
        name: Name of the task.
        words: What the task does, in the words of a caption.
        shape: Shape of a picture, (C, H, W).
        hide: bool (H, W), True where nothing is seen, in any channel.
        noise: Standard deviation of the measurement.
    """
    visible = (~hide).expand(shape).reshape(-1).nonzero()[:, 0]

    def apply(x: Tensor) -> Tensor:
        return x.flatten(1).index_select(1, visible.to(x.device))

    def adjoint(u: Tensor) -> Tensor:
        blank = u.new_zeros(len(u), hide.numel() * shape[0])
        return blank.index_copy(1, visible.to(u.device), u).reshape(-1, *shape)

    return Task(name, words, shape, (len(visible),), apply, adjoint, scaled_identity(1.0), noise)
