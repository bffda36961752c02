"""Write a picture whole or not at all, with its caption inside the file.

The caption of a PNG is stored in its `Description` text, so that a picture that lost its page still says what made
it, and the report page can describe it to people who cannot see it.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

DPI = 144  # of figures


def encode(picture: Image.Image | Figure) -> bytes:
    """Return a picture as the bytes of a PNG file with its caption."""
    out = io.BytesIO()
    if isinstance(picture, Figure):
        words = {"Description": picture.get_label() or "", "Software": None}
        picture.savefig(out, format="png", dpi=DPI, metadata=words, facecolor="white")
    else:
        info = PngInfo()
        info.add_itxt("Description", picture.info.get("Description", ""))
        picture.save(out, format="PNG", pnginfo=info, optimize=True)
    return out.getvalue()


def save(picture: Image.Image | Figure, path: Path | str) -> Path:
    """Write a picture as PNG.

    Arguments:
        picture: What any function of this room returns.
        path: Ends in .png; folders are made.

    Returns:
        The path.

    Raises:
        ValueError: If the path does not end in .png.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"Pictures are written as PNG; got {path.name!r}. Name it {path.stem}.png.")
    content = encode(picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
    return path


def description(path: Path | str) -> str:
    """Return the caption stored in a PNG, or an empty text."""
    with Image.open(path) as picture:
        return str(picture.info.get("Description", ""))
