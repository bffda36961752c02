"""Turn the bytes of one image file into uint8 pixels, exactly or not at all.

What decodes without loss or choice is taken: 8-bit and 1-bit grey, RGB, a palette (its colours), an alpha channel that
is opaque everywhere, and 16-bit grey, which is *scaled*, (v * 255 + 32767) // 65535, never clipped. Of a JPEG with
several pictures (MPO) the first is taken, as every viewer does. What would need a guess is refused with its reason:
CMYK (its colours need a profile; `cmyk="convert"` states one), 16-bit colour (the decoder would drop the low bytes),
transparency (needs a background; say which by `alpha`), animations and files of several pages, and anything truncated,
empty or no image. A PNG is refused if the checksum of any of its chunks is wrong: decoders go on with other pixels.
An orientation written in the file's EXIF data is obeyed, so that pixels are what a viewer shows.

The format is found in the bytes; a file's name decides only whether it is looked at. The size in a file's header is
compared with our own cap before any pixel is decoded: a few bytes can announce gigabytes.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFile, ImageOps, features

from sfumato.data.dataset import DataError

AVIF = "avif" in features.modules and features.check("avif")  # from Pillow 11.3 on
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", *(("AVIF",) if AVIF else ()))
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", *((".avif",) if AVIF else ())),
)
ALPHAS = ("refuse", "black", "white", "drop", "keep")
CMYKS = ("refuse", "convert")
ALONE = {"alpha": "save it without transparency", "cmyk": "convert it to RGB"}  # where no policy can be chosen
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
DECISIVE = (b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"eXIf", b"IEND")  # chunks of pixels
PNG = b"\x89PNG\r\n\x1a\n"
BITS_PER_SAMPLE = 258  # the tag of a TIFF file
GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX")


@dataclass(frozen=True)
class Decoded:
    """Hold the pixels of a file and what was unusual about it.

    Arguments:
        pixels: uint8 (C, H, W); C = 1 for grey and 3 for colour, and one more where an alpha channel is kept.
        remarks: Properties that were converted without loss, e.g. "palette"; () for a plain file.
        format: What kind of file it is, by its bytes: "png", "jpeg", ...
    """

    pixels: np.ndarray
    remarks: tuple[str, ...] = ()
    format: str = ""


def decode(content: bytes, *, alpha: str = "refuse", cmyk: str = "refuse") -> Decoded:
    """Decode one image file: PNG, JPEG, WebP, BMP, TIFF, GIF, PPM, PGM, PBM or AVIF.

    Arguments:
        content: The bytes of the file.
        alpha: What to do with transparent pixels: "refuse" the file, lay it on "black" or "white", "drop" the alpha
            channel and keep the colours stored under it, or "keep" it as the last channel, in every image.
        cmyk: What to do with the four inks of a CMYK file: "refuse" it, or "convert" it without a colour profile,
            R = 255 - min(C + K, 255) and alike.

    Returns:
        uint8 pixels (C, H, W).

    Raises:
        DataError: If the file cannot be decoded without a guess; the message is the reason, without a file name.
        ValueError: If a policy is unknown.
    """
    for what, policy, known in (("alpha", alpha, ALPHAS), ("cmyk", cmyk, CMYKS)):
        if policy not in known:
            raise ValueError(f"Unknown {what} policy {policy!r}. Available: {', '.join(known)}.")
    if not content:
        raise DataError("empty file (0 bytes)")
    if not content.startswith(PNG):
        return _decoded(content, alpha, cmyk)
    pixel_chunks = _pixel_chunks(content)
    try:
        return _decoded(content, alpha, cmyk)
    except UnreadableError:  # of a text or a profile beside the pixels, perhaps
        return _decoded(pixel_chunks, alpha, cmyk)


def decode_alone(content: bytes, *, alpha: str = "refuse") -> Decoded:
    """Decode a picture that a person hands over by itself, where there is no recipe that could choose a policy.

    Arguments:
        content: The bytes of the file.
        alpha: What to do with transparent pixels, as for `decode`.

    Raises:
        DataError: As `decode`, with what to do to the file in place of what to choose.
    """
    try:
        return decode(content, alpha=alpha)
    except DataError as error:
        raise DataError(re.sub(r"; choose (\w+)=.*", lambda found: f"; {ALONE[found[1]]}", str(error))) from error


class UnreadableError(DataError):
    """A file that the decoder could make nothing of."""


def _decoded(content: bytes, alpha: str, cmyk: str) -> Decoded:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            remarks = _judged(image, content, cmyk)
            image.load()
            pixels, more = _pixels(ImageOps.exif_transpose(image), alpha)
            name = "jpeg" if image.format == "MPO" else str(image.format).lower()
            return Decoded(pixels, (*remarks, *more), name)
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"announces more than the {MAX_PIXELS:,} pixels allowed") from error
    except Image.UnidentifiedImageError as error:
        if content.startswith(PNG):
            raise UnreadableError("a PNG whose header cannot be read") from error
        raise DataError(f"not a {', '.join(FORMATS)} image (begins with {content[:8]!r})") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        raise UnreadableError(f"truncated or corrupt ({error})") from error


def _pixel_chunks(content: bytes) -> bytes:
    """Return a PNG without the chunks that do not decide its pixels.

    Raises:
        DataError: If it ends early, or the checksum of any chunk is wrong.
    """
    kept, at, kind = [PNG], len(PNG), b""
    while kind != b"IEND":
        if at + 12 > len(content):
            raise DataError("truncated or corrupt (a PNG that ends before its last chunk)")
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 8 + length
        if end + 4 > len(content):
            raise DataError("truncated or corrupt (a PNG that ends within a chunk)")
        if zlib.crc32(memoryview(content)[at + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            raise DataError(f"truncated or corrupt (the checksum of PNG chunk {kind!r} is wrong)")
        kept += [content[at : end + 4]] if kind in DECISIVE else []
        at = end + 4
    return b"".join(kept)


def _judged(image: Image.Image, content: bytes, cmyk: str) -> list[str]:
    """Judge a file by its header, before its pixels take memory; return remarks."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"announces {width}x{height} pixels, more than the {MAX_PIXELS:,} allowed")
    bits = _bits(image, content)
    if image.mode not in (*GREY, "F") and bits > 8:
        raise DataError(f"{bits}-bit colour, whose low bytes would be lost; convert it to 8 bits")
    if bits not in (1, 2, 4, 8, 16):
        raise DataError(f"pixels of {bits} bits; convert them to 8 or 16 bits")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format == "MPO":
        return [f"the first of {frames} pictures in one JPEG"]
    if frames > 1:
        raise DataError(f"a file of {frames} pages" if image.format == "TIFF" else f"an animation of {frames} frames")
    if image.mode == "CMYK":
        if cmyk == "refuse":
            raise DataError("colour mode CMYK, which needs a colour profile; choose cmyk=convert, or convert it to RGB")
        return ["CMYK, converted without a profile"]
    if image.mode not in GREY + COLOUR:
        raise DataError(f"colour mode {image.mode}, which is neither grey nor RGB; convert it to RGB")
    return []


def _bits(image: Image.Image, content: bytes) -> int:
    """Return the bits of a sample in the file, which decoders may have cut to 8."""
    if image.format == "PNG":
        return content[24]
    if image.format == "TIFF":
        stored = image.tag_v2.get(BITS_PER_SAMPLE, 1)  # type: ignore[attr-defined]
        return max(stored) if isinstance(stored, tuple) else int(stored)
    if isinstance(image, ImageFile.ImageFile) and image.format == "PPM" and image.tile:
        told = image.tile[0][3]
        most = told[-1] if isinstance(told, tuple) else told
        return 16 if isinstance(most, int) and most > 255 else 8
    if image.format == "AVIF" and (at := content.find(b"av1C")) >= 0 and at + 6 < len(content):
        return 10 if content[at + 6] & 0x40 else 8
    return 8


def _pixels(image: Image.Image, alpha: str) -> tuple[np.ndarray, list[str]]:
    remarks = []
    if image.mode.startswith("I"):
        if "transparency" in image.info or alpha == "keep":
            raise DataError("16-bit grey together with transparency; convert it to 8 bits")
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise DataError(f"integer pixels from {deep.min()} to {deep.max()}, outside 16 bits")
        return ((deep * 255 + 32767) // 65535).astype(np.uint8)[None], ["16-bit grey, scaled to 8 bits"]
    if image.mode == "CMYK":
        image = _without_inks(image)
    if image.mode == "1":
        image, remarks = image.convert("L"), ["1 bit a pixel"]
    if image.mode in ("P", "PA"):
        remarks.append("palette")
    grey = image.mode in ("L", "LA")
    transparent = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    if alpha == "keep":
        pixels = _from_picture(image.convert("RGBA"))
        return np.delete(pixels, (1, 2), axis=0) if grey else pixels, remarks
    if transparent:
        image, remark = _without_alpha(image.convert("RGBA"), alpha)
        image = image.convert("L") if grey else image
        remarks.append(remark)
    elif image.mode in ("P", "RGBX"):
        image = image.convert("RGB")
    return _from_picture(image), remarks


def _without_inks(image: Image.Image) -> Image.Image:
    """Return the RGB of four inks, each what the sum of its ink and black leaves of white."""
    *inks, black = image.split()
    return Image.merge("RGB", [ImageChops.invert(ImageChops.add(ink, black)) for ink in inks])


def _without_alpha(image: Image.Image, alpha: str) -> tuple[Image.Image, str]:
    colour = image.convert("RGB")
    opacity = image.getchannel("A")
    if opacity.getextrema() == (255, 255):
        return colour, "alpha channel, opaque everywhere"
    if alpha == "refuse":
        raise DataError("transparent pixels; choose alpha=black, white, drop or keep")
    if alpha == "drop":
        return colour, "alpha channel, dropped"
    ground = Image.new("RGB", image.size, alpha)
    ground.paste(colour, mask=opacity)
    return ground, f"alpha channel, laid on {alpha}"


def crop_and_resize(pixels: np.ndarray, size: int, *, crop: int | None = None, filter: str = "lanczos") -> np.ndarray:
    """Cut the largest centred square, or one of a given side, and resize it.

    Arguments:
        pixels: uint8 (C, H, W).
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
    if len(square) in (1, 3):
        return _from_picture(to_picture(square).resize((size, size), FILTERS[filter]))
    planes = [to_picture(plane[None]).resize((size, size), FILTERS[filter]) for plane in square]
    return np.stack([np.array(plane) for plane in planes])  # each alone: no channel weighs another


def to_picture(pixels: np.ndarray) -> Image.Image:
    """Return uint8 pixels (C, H, W) as Pillow's image; of two or four channels the last is an alpha channel."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _from_picture(image: Image.Image) -> np.ndarray:
    array = np.array(image)
    return np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))
