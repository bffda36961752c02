"""Image files by their bytes: every format exactly, every checksum of a PNG, and each refusal by its reason."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.cli import main
from sfumato.data import DataError, load
from sfumato.data.decoding import AVIF, decode, decode_alone
from sfumato.evaluation.two_sets import open_set

SIDE = 12


def picture(mode: str = "RGB", seed: int = 0) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (SIDE, SIDE) if channels == 1 else (SIDE, SIDE, channels)
    codes = np.random.Generator(np.random.Philox(seed)).integers(0, 256, shape, dtype=np.uint8)
    return Image.frombytes(mode, (SIDE, SIDE), codes.tobytes())


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM", "BMP", "WEBP"])
def test_lossless_formats_give_the_pixels(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    found = decode(encoded(picture(), format, **options))
    assert np.array_equal(found.pixels.transpose(1, 2, 0), np.asarray(picture()))
    assert found.format == format.lower()


def test_grey_one_bit_and_palette_files() -> None:
    grey = picture("L")
    for format in ("TIFF", "PPM", "GIF"):
        found = decode(encoded(grey, format))
        assert np.array_equal(found.pixels[0], np.asarray(grey)), format
    one_bit = grey.convert("1")
    for format in ("TIFF", "PPM"):
        assert np.array_equal(decode(encoded(one_bit, format)).pixels[0], np.asarray(one_bit.convert("L")))
    palette = picture().quantize(16)
    found = decode(encoded(palette, "GIF"))
    assert np.array_equal(found.pixels.transpose(1, 2, 0), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("format", ["TIFF", "PPM"])
def test_sixteen_bits_of_grey_are_scaled(format: str) -> None:
    deep = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    assert decode(encoded(Image.fromarray(deep), format)).pixels.ravel().tolist() == list(range(256))


@pytest.mark.skipif(not AVIF, reason="this Pillow has no AVIF")
def test_avif_is_read() -> None:
    found = decode(encoded(Image.new("RGB", (16, 16), (200, 100, 50)), "AVIF"))
    assert found.format == "avif" and abs(found.pixels[:, 8, 8].astype(int) - [200, 100, 50]).max() <= 4


def test_no_flipped_bit_of_a_png_changes_pixels_untold() -> None:
    whole = encoded(picture(), "PNG")
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DataError):
            decode(bytes(damaged))
    with pytest.raises(DataError, match="the checksum of PNG chunk b'IDAT' is wrong"):
        at = whole.index(b"IDAT") + 10
        decode(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


def test_what_stands_beside_the_pixels_of_an_intact_png_does_not_matter() -> None:
    whole = encoded(picture(), "PNG")
    for odd in (chunk(b"pHYs", b"1"), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 24))), chunk(b"iCCP", b"?")):
        found = decode(whole[:33] + odd + whole[33:])
        assert np.array_equal(found.pixels.transpose(1, 2, 0), np.asarray(picture()))


def test_several_pictures_in_a_file() -> None:
    several = {"save_all": True, "append_images": [picture(seed=1)]}
    alone = decode(encoded(picture(), "JPEG", quality=95)).pixels
    found = decode(encoded(picture(), "MPO", quality=95, **several))
    assert found.format == "jpeg" and found.remarks == ("the first of 2 pictures in one JPEG",)
    assert np.array_equal(found.pixels, alone)
    for format, words in (
        ("GIF", "an animation of 2 frames"),
        ("WEBP", "an animation of 2 frames"),
        ("PNG", "an animation of 2 frames"),
        ("TIFF", "a file of 2 pages"),
    ):
        with pytest.raises(DataError, match=words):
            decode(encoded(picture(), format, save_all=True, append_images=[picture(seed=1)]))


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_four_inks_are_refused_with_the_remedy_or_converted_as_stated(format: str) -> None:
    content = encoded(Image.new("CMYK", (8, 8), (10, 20, 30, 40)), format)
    with pytest.raises(DataError, match="colour profile; convert it to RGB$"):
        decode_alone(content)  # of a picture by itself, for which no recipe chooses
    with pytest.raises(DataError, match="choose cmyk=convert"):
        decode(content)
    found = decode(content, cmyk="convert")
    assert found.pixels[:, 0, 0].tolist() == [205, 195, 185] and "without a profile" in found.remarks[0]


def test_a_kept_alpha_channel_is_a_channel_of_every_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture("RGBA"), "PNG"))
    (tmp_path / "b.png").write_bytes(encoded(picture("RGB"), "PNG"))
    (tmp_path / "c.png").write_bytes(encoded(picture("LA"), "PNG"))
    data = load(str(tmp_path), split="all", channels=4, options={"alpha": "keep"})
    assert data.shape == (4, SIDE, SIDE)
    assert np.array_equal(data.images[0].permute(1, 2, 0), np.asarray(picture("RGBA")))
    assert data.images[1, 3].eq(255).all() and data.images[2, 0].equal(data.images[2, 1])
    small = load(str(tmp_path), split="all", channels=4, size=4, options={"alpha": "keep", "filter": "box"})
    means = np.asarray(picture("RGBA"), dtype=float).reshape(4, 3, 4, 3, 4).mean((1, 3)).transpose(2, 0, 1)
    assert abs(small.images[0].numpy() - means).max() < 1, "no channel weighs another"
    assert load(str(tmp_path), split="all", channels=3, options={"alpha": "drop"}).shape == (3, SIDE, SIDE)


def test_the_codec_is_the_format_and_not_the_name(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(encoded(picture(seed=i), "PNG"))
    images = open_set(str(tmp_path))
    assert len(list(images.chunks())[0]) == 3 and images.codec == "png"
    (tmp_path / "3.png").write_bytes(encoded(picture(seed=3), "JPEG"))
    images = open_set(str(tmp_path))
    list(images.chunks())
    assert images.codec == "jpeg+png"


@pytest.mark.parametrize("name", ["a\x1b[2J\x1b]0;x\x07b.png", "c\nd.png", "e\udcff\udcfe.png"])
def test_odd_names_of_files_are_prepared_and_never_reach_the_terminal(name: str, tmp_path: Path, capsys) -> None:
    source = tmp_path / "photos"
    (source / "kind").mkdir(parents=True)
    (source / "kind" / name).write_bytes(encoded(picture(), "PNG"))
    (source / "kind" / "plain.png").write_bytes(encoded(picture(seed=1), "PNG"))
    assert main(["data", "prepare", str(source), str(tmp_path / "out.zip"), "--size", "6"]) == 0
    assert load(str(tmp_path / "out.zip"), split="all").classes == ("kind",)
    (source / "kind" / name).write_bytes(b"damaged")
    assert main(["data", "check", str(source)]) == 2
    assert main(["data", "show", str(source)]) == 2
    said = "".join(capsys.readouterr())
    assert "not a PNG" in said and not set(said) & {"\x1b", "\x07", "\udcff"}
