"""Write a picture whole or not at all, with its caption inside the file.

The caption of a PNG is stored in its `Description` text, so that a picture that lost its page still says what made
it, and the report page can describe it to people who cannot see it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from matplotlib.figure import Figure
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from sfumato.core.writing import check_writable, write_whole
from sfumato.report.resolution import resolution

DPI = 144  # of figures
INCH = 96  # pixels of an inch of a page
COMMAND = "Command"  # the text of a PNG that says what makes it again


def encode(picture: Image.Image | Figure, command: str = "") -> bytes:
    """Return a picture as the bytes of a PNG file with its caption and command; an animation as a GIF."""
    out = io.BytesIO()
    if isinstance(picture, Figure):
        words = {"Description": picture.get_label() or "", "Software": None} | ({COMMAND: command} if command else {})
        picture.savefig(out, format="png", dpi=DPI * resolution(), metadata=words, facecolor="white")
    elif getattr(picture, "n_frames", 1) > 1:
        comment = command.encode() or picture.info.get("comment", b"")
        picture.save(out, format="GIF", save_all=True, disposal=1, comment=comment)
    else:
        info = PngInfo()
        if command:
            info.add_itxt(COMMAND, command)
        info.add_itxt("Description", picture.info.get("Description", ""))
        picture.save(out, format="PNG", pnginfo=info, optimize=True, dpi=(INCH * resolution(),) * 2)
    return out.getvalue()


def animated(frames: Sequence[Image.Image], durations: Sequence[int], command: str = "") -> bytes:
    """Return pictures as the bytes of a GIF that repeats; smaller ones are filled up with white at the right and below.

    Arguments:
        frames: RGB pictures.
        durations: Milliseconds of each.
        command: What makes it again; kept in the file.
    """
    size = max(f.width for f in frames), max(f.height for f in frames)  # captions may wrap in some frames only
    first, *others = [ImageOps.pad(f, size, color="white", centering=(0, 0)) if f.size != size else f for f in frames]
    out = io.BytesIO()
    moving = {"save_all": True, "append_images": others, "duration": list(durations), "loop": 0, "disposal": 1}
    first.save(out, format="GIF", comment=command.encode(), **moving)
    return out.getvalue()


def save(picture: Image.Image | Figure, path: Path | str, *, command: str = "") -> Path:
    """Write a picture as PNG, or an animation as GIF.

    Arguments:
        picture: What any function of `report` returns.
        path: Ends in .png (.gif for an animation); folders are made.
        command: What makes it again; kept in the file.

    Returns:
        The path.

    Raises:
        ValueError: If the path does not end so.
    """
    path = check_ending(path, moving=getattr(picture, "n_frames", 1) > 1)
    return write_whole(path, encode(picture, command))


def check_ending(path: Path | str, *, moving: bool = False) -> Path:
    """Return the path of a picture, or of one that moves, refusing a name that does not say so."""
    path, what, kind = Path(path), *(("Animations", "GIF") if moving else ("Pictures", "PNG"))
    if path.suffix != f".{kind.lower()}":
        raise ValueError(f"{what} are written as {kind}; got {path.name!r}. Name it {path.stem}.{kind.lower()}.")
    return path


def place(path: Path | str, *, moving: bool | None = False) -> Path:
    """Return the path of a picture that is yet to be drawn, before the work: its name fits, and it can be written.

    Arguments:
        path: Where it goes.
        moving: Whether it moves; None if that turns out later, and the name decides between the two.

    Raises:
        ValueError: If not.
    """
    moving = Path(path).suffix == ".gif" if moving is None else moving
    return check_writable(check_ending(path, moving=moving))


def description(file: Path | str | IO[bytes]) -> str:
    """Return the caption stored in a PNG, or an empty text."""
    with Image.open(file) as picture:
        return str(picture.info.get("Description") or "")


def command_in(path: Path | str) -> str:
    """Return the command stored in a PNG or GIF, or an empty text."""
    with Image.open(path) as picture:
        found = picture.info.get(COMMAND) or picture.info.get("comment") or ""
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)


def size_on_page(content: bytes) -> tuple[int, int]:
    """Return width and height of a PNG or GIF in CSS pixels, 96 an inch: one drawn at twice the resolution is as large.

    Arguments:
        content: The whole file.
    """
    with Image.open(io.BytesIO(content)) as picture:
        per_inch = float(picture.info.get("dpi", (INCH, INCH))[0]) or INCH
        return round(picture.width * INCH / per_inch), round(picture.height * INCH / per_inch)
