"""Turn the bytes of one image file into uint8 pixels, exactly or not at all.

What decodes without loss or choice is taken: 8-bit and 1-bit grey, RGB, a palette (its colours), an alpha channel that
is opaque everywhere, and 16-bit grey, which is *scaled*, (v * 255 + 32767) // 65535, never clipped. What would need a
guess is refused with its reason: CMYK (needs a colour profile), 16-bit colour (the decoder would drop the low bytes),
transparency (needs a background; say which by `alpha`), animations, and anything truncated, empty or no image.
An orientation written in the file's EXIF data is obeyed, so that pixels are what a viewer shows.

The size in a file's header is compared with our own cap before any pixel is decoded: a few bytes can announce
gigabytes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from sfumato.data.dataset import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
ALPHAS = ("refuse", "black", "white", "drop")
MAX_PIXELS = 1 << 26
"""The most pixels one image may have: 8192 x 8192."""
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Decoded:
    """Hold the pixels of a file and what was unusual about it.

    Arguments:
        pixels: uint8 (C, H, W), C = 1 or 3.
        remarks: Properties that were converted without loss, e.g. "palette"; () for a plain file.
    """

    pixels: np.ndarray
    remarks: tuple[str, ...] = ()


def decode(content: bytes, *, alpha: str = "refuse") -> Decoded:
    """Decode one PNG, JPEG, WebP or BMP file.

    Arguments:
        content: The bytes of the file.
        alpha: What to do with transparent pixels: "refuse" the file, lay it on "black" or "white", or "drop" the
            alpha channel and keep the colours stored under it.

    Returns:
        uint8 pixels (C, H, W), C = 1 for grey and 3 for colour.

    Raises:
        DataError: If the file cannot be decoded without a guess; the message is the reason, without a file name.
        ValueError: If `alpha` is unknown.
    """
    if alpha not in ALPHAS:
        raise ValueError(f"Unknown alpha policy {alpha!r}. Available: {', '.join(ALPHAS)}.")
    if not content:
        raise DataError("empty file (0 bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _refuse_unloaded(image, content)
            image.load()
            return _pixels(ImageOps.exif_transpose(image), alpha)
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"announces more than the {MAX_PIXELS:,} pixels allowed") from error
    except Image.UnidentifiedImageError as error:
        raise DataError(f"not a {', '.join(FORMATS)} image (begins with {content[:8]!r})") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        raise DataError(f"truncated or corrupt ({error})") from error


def _refuse_unloaded(image: Image.Image, content: bytes) -> None:
    """Judge a file by its header, before its pixels take memory."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"announces {width}x{height} pixels, more than the {MAX_PIXELS:,} allowed")
    if image.format == "PNG" and content[24] == 16 and content[25] != 0:
        raise DataError("16-bit colour, whose low bytes would be lost; convert it to 8 bits")
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"an animation of {image.n_frames} frames")  # type: ignore[attr-defined]
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "I", "I;16", "I;16B", "I;16L"):
        raise DataError(f"colour mode {image.mode}, which needs a colour profile; convert it to RGB")


def _pixels(image: Image.Image, alpha: str) -> Decoded:
    remarks = []
    if image.mode.startswith("I"):
        if "transparency" in image.info:
            raise DataError("16-bit grey with a transparent colour; convert it to 8 bits")
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise DataError(f"integer pixels from {deep.min()} to {deep.max()}, outside 16 bits")
        return Decoded(((deep * 255 + 32767) // 65535).astype(np.uint8)[None], ("16-bit grey, scaled to 8 bits",))
    if image.mode == "1":
        image, remarks = image.convert("L"), ["1 bit a pixel"]
    if image.mode in ("P", "PA"):
        remarks.append("palette")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        grey = image.mode in ("L", "LA")
        image, remark = _without_alpha(image.convert("RGBA"), alpha)
        image = image.convert("L") if grey else image
        remarks.append(remark)
    elif image.mode in ("P", "RGBX"):
        image = image.convert("RGB")
    return Decoded(_from_picture(image), tuple(remarks))


def _without_alpha(image: Image.Image, alpha: str) -> tuple[Image.Image, str]:
    colour = image.convert("RGB")
    opacity = image.getchannel("A")
    if opacity.getextrema() == (255, 255):
        return colour, "alpha channel, opaque everywhere"
    if alpha == "refuse":
        raise DataError("transparent pixels; choose alpha=black, white or drop")
    if alpha == "drop":
        return colour, "alpha channel, dropped"
    ground = Image.new("RGB", image.size, alpha)
    ground.paste(colour, mask=opacity)
    return ground, f"alpha channel, laid on {alpha}"


def crop_and_resize(pixels: np.ndarray, size: int, *, crop: int | None = None, filter: str = "lanczos") -> np.ndarray:
    """Cut the largest centred square, or one of a given side, and resize it.

    Arguments:
        pixels: uint8 (C, H, W), C = 1 or 3.
        size: New height and width, >= 1.
        crop: Side of the centred square to cut first; None means min(H, W). An odd pixel is cut at the right, bottom.
        filter: Name of a Pillow filter: nearest, box, bilinear, hamming, bicubic or lanczos; all but nearest widen
            with the scale when shrinking, so none of them aliases.

    Returns:
        uint8 (C, size, size).

    Raises:
        ValueError: If the filter is unknown, or the crop is larger than the image.
    """
    if filter not in FILTERS:
        raise ValueError(f"Unknown filter {filter!r}. Available: {', '.join(FILTERS)}.")
    height, width = pixels.shape[1:]
    side = min(height, width) if crop is None else crop
    if side > min(height, width):
        raise DataError(f"{width}x{height} pixels are too few to cut {side}x{side} from them")
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[:, top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(square)
    return _from_picture(to_picture(square).resize((size, size), FILTERS[filter]))


def to_picture(pixels: np.ndarray) -> Image.Image:
    """Return uint8 pixels (C, H, W) of one or three channels as Pillow's image."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _from_picture(image: Image.Image) -> np.ndarray:
    array = np.array(image)
    return np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))
