"""At which resolution pictures are drawn: 1 for a page, 2 for a sharp screen or a slide, up to 4 for print.

A picture at twice the resolution is as large on a page and has twice the pixels each way: its words are drawn with
twice as large letters, and each pixel of an image becomes a square of twice the side. Whoever asks for pictures sets
it once (`--scale` of every command that draws), for the rest of the context it runs in.
"""

from __future__ import annotations

from contextvars import ContextVar

LARGEST = 4
_SCALE: ContextVar[int] = ContextVar("scale", default=1)


def resolution() -> int:
    """Return how many picture pixels stand for one."""
    return _SCALE.get()


def draw_at(scale: int) -> None:
    """Draw the pictures that follow at a resolution.

    Arguments:
        scale: Picture pixels for one, from 1 to 4.

    Raises:
        ValueError: If it is none of these.
    """
    if not 1 <= scale <= LARGEST:
        raise ValueError(f"--scale is a whole number from 1 to {LARGEST}, the pixels drawn for one each way.")
    _SCALE.set(scale)
