"""A picture that says how it was made, so that it can be made again.

The PNG's text field `ENTRY` holds JSON:

    seed, label          of one image, or  seeds, labels  of a sheet of them, row by row
    mix                  of an image between two seeds, the weight of the second start (`sources.between`)
    settings             the text of `settings_of`: what makes images (`runs.identity`), device, torch
    pixels               sha256 of mode, size and pixels: whoever edits the picture breaks the signature

`sfumato sample RUN --like PICTURE` makes it again and compares.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch import __version__ as torch_version

from sfumato.core.images import planes
from sfumato.core.reading import parse_json, read_bytes
from sfumato.data.dataset import Dataset
from sfumato.data.hashing import hash_image
from sfumato.evaluation.real import content_of
from sfumato.runs.identity import identity
from sfumato.runs.run import Run

ENTRY = "sfumato"
LONGEST = 1 << 28  # bytes of such a file
LARGEST = 64_000_000  # pixels of a picture that is read: a small file can claim any size


class SignatureError(ValueError):
    """A picture that does not say how it was made, or not truly."""


def picture_of(image: Tensor) -> Image.Image:
    """Return a uint8 image (C, H, W) as a picture, drawn as `core.images.planes` says."""
    array: np.ndarray = planes(image[None])[0].permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def digest(picture: Image.Image) -> str:
    """Return the sha256 of a picture's mode, size and pixels."""
    shape = f"{picture.mode}{picture.size}".encode()
    return hashlib.sha256(shape + picture.tobytes()).hexdigest()


def signed(picture: Image.Image, made: Mapping[str, Any], words: str = "") -> PngInfo:
    """Return the text fields of a PNG that says how it was made.

    Arguments:
        picture: Whose pixels are signed.
        made: JSON values: seed, label, settings.
        words: The same for a person (`runs.making`), under `Description`, which other programs show; not signed.
    """
    info = PngInfo()
    if words:
        info.add_itxt("Description", words)
    info.add_text(ENTRY, json.dumps({**made, "pixels": digest(picture)}))
    return info


def read(file: Path | IO[bytes], name: str = "") -> tuple[Image.Image, dict[str, Any]]:
    """Return a picture and how it was made, without its hash.

    Arguments:
        file: A PNG, as a path or opened.
        name: For messages; the path unless given.

    Raises:
        SignatureError: If it is no such picture, is too large, or was changed since.
        FileNotFoundError: If there is no such file.
    """
    name = name or str(file)
    if isinstance(file, str | Path):
        file = io.BytesIO(read_bytes(file, LONGEST, SignatureError))
    try:
        with Image.open(file, formats=["PNG"]) as picture:
            if picture.width * picture.height > LARGEST:
                raise SignatureError(
                    f"{name} claims {picture.width} x {picture.height} pixels; at most {LARGEST:,} are read."
                )
            picture.load()
            carried = parse_json(picture.info[ENTRY], f"The text of {name}", finite=False, error=SignatureError)
            hashed = carried.pop("pixels")
    except FileNotFoundError:
        raise
    except SignatureError:
        raise
    except UnidentifiedImageError:
        raise SignatureError(f"{name} is not a PNG picture.") from None
    except KeyError:
        raise SignatureError(
            f"{name} does not say how it was made. Give a PNG that `sfumato sample --images` or `sfumato app` made; "
            "other programs often drop the text inside a picture."
        ) from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        raise SignatureError(f"{name} is damaged ({type(error).__name__}: {error}).") from None
    if hashed != digest(picture):
        raise SignatureError(f"{name} was changed after it was made: its pixels are not those it was signed for.")
    return picture, carried


def settings_of(run: Run, use: str | None, device: str) -> dict[str, Any]:
    """Return what decides the images of a run, by content (`runs.identity`), its names for people, device and torch.

    Arguments:
        run: Sampled as its recipe says.
        use: Which average of the weights; None for the recipe's choice.
        device: Where images are computed; kernels differ in rounding.
    """
    saved = run.checkpoint
    return {
        **identity(run, use),
        "recipe": run.recipe.name,
        "checkpoint": f"{saved.path.name} {saved.manifest[:16]}",
        "use": use or run.recipe.ema.use,
        "device": device,
        "torch": torch_version,
    }


def told_settings(where: Mapping[str, str], image: Tensor | None, lender: Dataset | None) -> dict[str, Any]:
    """Return what images were told beside a class, by content, for their settings.

    Arguments:
        where: Attributes by name.
        image: The image that was given, uint8 (c, h, w); None for none.
        lender: Real images that lent the rest (`Run.lender`); None for none.
    """
    given: dict[str, Any] = {"where": dict(where)} if where else {}
    if image is not None:
        given["like_image"] = hash_image(image.numpy()).hex()
    return given if lender is None else given | {"lent": content_of(lender)["told"]}
