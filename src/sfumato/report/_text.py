"""Words on a canvas: one typeface, measured and broken into lines."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
from PIL import ImageFont


@cache
def font(size: int = 13, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which matplotlib brings along, so that pictures look the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def wrap(text: str, width: int, face: ImageFont.FreeTypeFont) -> list[str]:
    """Break a text at spaces into lines of at most `width` pixels; a longer word stands alone."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and face.getlength(longer) > width:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return lines


def size_of(text: str, face: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Return width and height in pixels of a text of one or more lines."""
    lines = text.split("\n") if text else []
    return max((int(face.getlength(line) + 0.99) for line in lines), default=0), leading(face) * len(lines)


def leading(face: ImageFont.FreeTypeFont) -> int:
    """Return the distance between two lines of text in pixels."""
    return round(face.size * 1.35)
