"""Write a picture whole or not at all, with its caption inside the file.

The caption of a PNG is stored in its `Description` text, so that a picture that lost its page still says what made
it, and the report page can describe it to people who cannot see it.
"""

from __future__ import annotations

import os
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo


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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if isinstance(picture, Figure):
            FigureCanvasAgg(picture)
            words = {"Description": picture.get_label() or ""}
            picture.savefig(temporary, format="png", dpi=144, metadata=words, facecolor="white")
        else:
            info = PngInfo()
            info.add_itxt("Description", picture.info.get("Description", ""))
            picture.save(temporary, format="PNG", pnginfo=info, optimize=True)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def description(path: Path | str) -> str:
    """Return the caption stored in a PNG, or an empty text."""
    with Image.open(path) as picture:
        return str(picture.info.get("Description", ""))
