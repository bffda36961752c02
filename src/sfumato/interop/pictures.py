"""A person's own pictures, as pixels that a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sfumato.core.reading import read_bytes
from sfumato.core.task import TaskError
from sfumato.data.dataset import DataError
from sfumato.data.decoding import SUFFIXES, decode_alone
from sfumato.tasks._masks import hidden


def files_of(paths: Sequence[Path | str]) -> list[Path]:
    """Return picture files: those named, and those in the folders named, sorted by name.

    Raises:
        FileNotFoundError: If a path does not exist.
        DataError: If there is no picture.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(2, "There is no such picture or folder", str(path))
    if not found:
        raise DataError(f"There is no picture ({', '.join(SUFFIXES)}) in {', '.join(map(str, paths))}.")
    return found


FIT = "--fit converts and resizes it."


def read_picture(file: Path, shapes: Sequence[tuple[int, ...]], fit: bool = False, remedy: str = FIT) -> Tensor:
    """Return a picture as uint8 (C, H, W), of one of the shapes asked for.

    Arguments:
        file: PNG, JPEG, WebP or BMP.
        shapes: That are taken, the first being what a picture is made to if `fit` is set.
        fit: Whether a picture of another shape is converted: to grey or colour, and resized (bicubic).
        remedy: What to do about a picture of another shape, in a sentence.

    Raises:
        DataError: If the file cannot be decoded, or has another shape and `fit` is not set.
    """
    channels, height, width = shapes[0]
    alpha = "keep" if channels in (2, 4) else "refuse"  # of a model that makes the alpha channel, too
    content = read_bytes(file, error=DataError)
    try:
        pixels = torch.from_numpy(decode_alone(content, alpha=alpha).pixels)
    except DataError as error:
        raise DataError(f"{file}: {error}.") from None
    if tuple(pixels.shape) in shapes:
        return pixels
    if not fit or (channels not in (1, 3) and len(pixels) != channels):
        wanted, more = " or ".join(in_words(shape) for shape in dict.fromkeys(shapes)), "" if fit else f" {remedy}"
        raise DataError(f"{file} is {in_words(tuple(pixels.shape))}; this needs {wanted}.{more}")
    if channels not in (1, 3):
        planes = [Image.fromarray(p.numpy()).resize((width, height), Image.Resampling.BICUBIC) for p in pixels]
        return torch.stack([torch.from_numpy(np.array(plane)) for plane in planes])
    picture = Image.fromarray(pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy())
    resized = picture.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BICUBIC)
    array = np.asarray(resized)
    return torch.from_numpy(array[None].copy() if channels == 1 else array.transpose(2, 0, 1).copy())


def read_mask(file: Path, height: int, width: int, fit: bool = False) -> Tensor:
    """Return which pixels a picture marks, bool (height, width): those brighter than half.

    Arguments:
        file: A picture of the image's size, white where pixels are hidden or may change.
        height: Pixels from top to bottom of the image.
        width: Pixels from left to right.
        fit: Whether a mask of another size is resized to the nearest pixels.

    Raises:
        DataError: If the file cannot be decoded, is neither black nor bright anywhere, or has another size and `fit`
            is not set.
    """
    content = read_bytes(file, error=DataError)
    try:
        pixels = decode_alone(content, alpha="black").pixels
    except DataError as error:
        raise DataError(f"{file}: {error}.") from None
    grey = Image.fromarray(pixels.mean(0).astype(np.uint8))
    if grey.size != (width, height):
        if not fit:
            raise DataError(
                f"The mask {file} is {grey.width}x{grey.height} and the image {width}x{height}. --fit resizes it "
                "to the nearest pixels."
            )
        grey = grey.resize((width, height), Image.Resampling.NEAREST)
    try:
        return hidden(torch.from_numpy(np.array(grey)), height, width)
    except TaskError as error:
        raise DataError(f"{file}: {error}") from None


def in_words(shape: tuple[int, ...]) -> str:
    """Say the shape of a picture.

    >>> in_words((1, 20, 30)), in_words((3, 8, 8))
    ('grey 30x20', 'RGB 8x8')
    """
    return f"{ {1: 'grey', 3: 'RGB'}.get(shape[0], f'{shape[0]} channels') } {shape[2]}x{shape[1]}".strip()
