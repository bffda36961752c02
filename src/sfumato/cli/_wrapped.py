"""Text that fits the terminal."""

from __future__ import annotations

import shutil
import textwrap

WIDEST = 110  # columns; longer lines are hard to read


def wrapped(text: str, indent: str = "", hang: str | None = None) -> str:
    """Return text in lines that fit the terminal, broken between words.

    Arguments:
        text: One paragraph.
        indent: What each line begins with.
        hang: What lines after the first begin with; None for the same.
    """
    width = min(WIDEST, shutil.get_terminal_size().columns)
    hang = indent if hang is None else hang
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=hang, break_on_hyphens=False)
