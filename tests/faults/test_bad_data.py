"""Bad input to the data room (P12-P14 of the promises): every bad file listed, loading refused, nothing guessed."""

import gzip
import hashlib
import io
import struct
import time
import urllib.error
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.core.find import OptionError
from sfumato.data import DataError, check, fashion_mnist, load, mnist
from sfumato.data.decoding import MAX_PIXELS, crop_and_resize, decode
from sfumato.data.idx import read_idx

SIDE = 12


def rgb(seed, side=SIDE):
    g = np.random.Generator(np.random.Philox(seed))
    return Image.fromarray(g.integers(0, 256, (side, side, 3), dtype=np.uint8))


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def handmade_png(width, height, depth, colour, raw):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(raw)), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def deep_colour():
    raw = (b"\0" + bytes(range(SIDE * 6))) * SIDE
    return handmade_png(SIDE, SIDE, 16, 2, raw)


def transparent():
    image = rgb(1).convert("RGBA")
    image.putpixel((0, 0), (10, 20, 30, 0))
    return encoded(image)


def animation():
    return encoded(rgb(1), "WEBP", save_all=True, append_images=[rgb(2)], lossless=True)


JPEG = encoded(rgb(0), "JPEG", quality=95)
BAD = {
    "truncated.jpg": (JPEG[: len(JPEG) // 2], "truncated or corrupt"),
    "truncated.png": (encoded(rgb(0))[:200], "truncated or corrupt"),
    "empty.png": (b"", "0 bytes"),
    "text.png": (b"this is not a picture\n" * 20, "not a PNG, JPEG, WEBP, BMP, TIFF, GIF, PPM"),
    "psd.png": (b"8BPS\0\1" + bytes(40), "not a PNG, JPEG, WEBP, BMP, TIFF, GIF, PPM"),
    "wrong-size.png": (encoded(rgb(1, SIDE + 4)), "16x16 pixels where most have 12x12"),
    "grey.png": (encoded(rgb(1).convert("L")), "grey where most are colour"),
    "transparent.png": (transparent(), "transparent pixels; choose alpha="),
    "cmyk.jpg": (encoded(rgb(1).convert("CMYK"), "JPEG"), "colour mode CMYK"),
    "deep.png": (deep_colour(), "16-bit colour"),
    "animation.webp": (animation(), "animation of 2 frames"),
    "bomb.png": (handmade_png(20000, 20000, 8, 2, b"\0"), "pixels"),
    "large.png": (handmade_png(9000, 9000, 8, 2, b"\0"), "announces 9000x9000 pixels"),
}
UNUSUAL = {
    "palette.png": (encoded(rgb(1).quantize(16)), "palette"),
    "opaque.png": (encoded(rgb(2).convert("RGBA")), "opaque everywhere"),
}


@pytest.fixture
def mixed(tmp_path):
    for i in range(20):
        (tmp_path / f"good{i:02d}.png").write_bytes(encoded(rgb(100 + i)))
    for name, (content, _) in (BAD | UNUSUAL).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "notes.txt").write_text("not an image by its name: passed over")
    (tmp_path / ".hidden.png").write_bytes(b"")
    return tmp_path


def test_check_lists_every_bad_and_every_unusual_file(mixed):
    report = check(mixed)
    assert {f.name for f in report.faults} == set(BAD)
    assert {f.name for f in report.findings if not f.fatal} == set(UNUSUAL)
    for f in report.findings:
        assert (BAD | UNUSUAL)[f.name][1] in f.reason
    assert report.count == 20 + len(BAD) + len(UNUSUAL)
    text = str(report)
    assert all(name in text for name in BAD)
    assert f"{len(BAD)} bad, 2 unusual, 0 exact duplicates." in text


def test_loading_fails_by_default_and_names_the_first(mixed):
    with pytest.raises(DataError) as caught:
        load(str(mixed), split="all")
    message = str(caught.value)
    assert message.startswith(f"{len(BAD)} of {20 + len(BAD) + len(UNUSUAL)} images in {mixed} are bad:")
    assert "animation.webp: an animation of 2 frames" in message
    assert f"... and {len(BAD) - 5} more" in message
    assert "data.skip_bad=true" in message


def test_skipping_is_asked_for_counted_and_recorded(mixed):
    with pytest.warns(UserWarning, match=f"Skipped {len(BAD)} of"):
        d = load(str(mixed), split="all", options={"skip_bad": True})
    assert len(d) == 22
    assert f"{len(BAD)} bad files skipped" in d.rule
    names = sorted([f"good{i:02d}.png" for i in range(20)] + list(BAD) + list(UNUSUAL))
    assert [names[i] for i in d.indices] == sorted([f"good{i:02d}.png" for i in range(20)] + list(UNUSUAL))
    palette = d.images[d.indices.tolist().index(names.index("palette.png"))]
    assert np.array_equal(palette.permute(1, 2, 0), np.asarray(rgb(1).quantize(16).convert("RGB")))


def test_asking_for_size_and_channels_makes_the_differing_ones_good(mixed):
    faults = {f.name for f in check(mixed, size=8, channels=3, alpha="black").faults}
    assert faults == set(BAD) - {"wrong-size.png", "grey.png", "transparent.png"}


def test_a_bomb_is_refused_without_being_decoded():
    started = time.perf_counter()
    for name in ("bomb.png", "large.png"):
        with pytest.raises(DataError, match=f"{MAX_PIXELS:,}"):
            decode(BAD[name][0])
    assert time.perf_counter() - started < 0.5


def test_sixteen_bit_grey_is_scaled_and_never_saturated():
    deep = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    found = decode(encoded(Image.fromarray(deep)))
    assert np.array_equal(found.pixels[0].ravel(), np.arange(256))
    assert found.remarks == ("16-bit grey, scaled to 8 bits",)
    halves = np.array([[0, 128, 129, 65535 - 129, 65535 - 128, 65535]], dtype=np.uint16)
    assert decode(encoded(Image.fromarray(halves))).pixels.ravel().tolist() == [0, 0, 1, 254, 255, 255]


@pytest.mark.parametrize(
    ("alpha", "expected"), [("black", (0, 0, 0)), ("white", (255, 255, 255)), ("drop", (10, 20, 30))]
)
def test_the_policy_for_transparency_is_explicit(alpha, expected):
    found = decode(transparent(), alpha=alpha)
    assert tuple(found.pixels[:, 0, 0]) == expected
    assert np.array_equal(found.pixels[:, 1:].transpose(1, 2, 0), np.asarray(rgb(1))[1:])
    with pytest.raises(ValueError, match="Unknown alpha policy 'blue'"):
        decode(transparent(), alpha="blue")


def test_a_half_transparent_pixel_is_mixed():
    image = Image.new("RGBA", (1, 1), (200, 100, 0, 128))
    assert decode(encoded(image), alpha="white").pixels.ravel().tolist() == [227, 177, 127]
    grey = Image.new("LA", (1, 1), (200, 128))
    assert decode(encoded(grey), alpha="black").pixels.ravel().tolist() == [100]


def test_transparent_palette_and_keyed_colours_are_transparency_too():
    keyed = encoded(rgb(1), "PNG", transparency=rgb(1).getpixel((3, 3)))
    palette = encoded(rgb(1).quantize(8), "PNG", transparency=0)
    for content in (keyed, palette):
        with pytest.raises(DataError, match="transparent pixels"):
            decode(content)


def test_orientation_is_obeyed():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the viewer turns it back by 90 degrees clockwise
    image = rgb(5)
    found = decode(encoded(image, exif=exif)).pixels
    assert np.array_equal(found.transpose(1, 2, 0), np.rot90(np.asarray(image), -1))


def test_one_bit_and_grey_stay_grey():
    assert decode(encoded(rgb(1).convert("1"))).pixels.shape == (1, SIDE, SIDE)
    assert set(np.unique(decode(encoded(rgb(1).convert("1"))).pixels)) == {0, 255}
    assert np.array_equal(decode(encoded(rgb(1).convert("L"))).pixels[0], np.asarray(rgb(1).convert("L")))


def test_impossible_crops_and_filters_are_refused():
    pixels = np.zeros((3, 10, 8), dtype=np.uint8)
    with pytest.raises(ValueError, match="Unknown filter 'sinc'. Available: nearest, box"):
        crop_and_resize(pixels, 4, filter="sinc")
    with pytest.raises(DataError, match="too few to cut 9x9"):
        crop_and_resize(pixels, 4, crop=9)


# The IDX files of MNIST and Fashion-MNIST


def idx(array):
    header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


def test_an_idx_file_is_read_as_written(tmp_path):
    array = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)
    (tmp_path / "x.gz").write_bytes(idx(array))
    assert np.array_equal(read_idx(tmp_path / "x.gz"), array)


GOOD_IDX = idx(np.arange(200, dtype=np.uint8))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an IDX file|not a whole gzip"),
        (b"text", "not a whole gzip file"),
        (GOOD_IDX[:-20], "not a whole gzip file"),
        (GOOD_IDX[:40] + b"\0\0" + GOOD_IDX[42:], "not a whole gzip file"),
        (gzip.compress(b"\0\0\x0d\x01\0\0\0\x01a", mtime=0), "begins with 000008; found 00000d01"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x05abc", mtime=0), r"announces the shape \(5,\) but holds 3 values"),
        (gzip.compress(b"\0\0\x08\x03\0\0", mtime=0), r"announces the shape \(\)"),
    ],
)
def test_a_broken_idx_file_is_refused(tmp_path, content, reason):
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_idx(tmp_path / "x.gz")


@pytest.mark.parametrize(("module", "name"), [(fashion_mnist, "fashion-mnist"), (mnist, "mnist")])
def test_a_corrupt_official_file_is_named_with_expectation_finding_and_remedy(tmp_path, module, name):
    known = module.FILES["test-images"]
    file = tmp_path / name / known.name
    file.parent.mkdir()
    file.write_bytes(bytes(known.size))
    found = hashlib.md5(bytes(known.size)).hexdigest()
    message = rf"{known.name} is corrupt or another file: expected md5 {known.md5}, found {found}\. Delete it and run"
    with pytest.raises(DataError, match=message):
        load(name, split="test", root=tmp_path)


def test_a_missing_file_that_cannot_be_fetched_says_what_to_do(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(DataError, match="train-images-idx3-ubyte.gz is not in .*mnist.* set SFUMATO_DATA"):
        load("mnist", root=tmp_path)
    with pytest.raises(DataError, match="cifar-10-python.tar.gz is not in"):
        load("cifar10", root=tmp_path)
    for name in ("cifar10-jpeg75", "cifar10-first4000"):
        with pytest.raises(DataError, match="is missing; it cannot be downloaded"):
            load(name, root=tmp_path)


# Archives


def archive(path, entries):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of duplicate names, which is the point
        with zipfile.ZipFile(path, "w") as file:
            for name, content in entries:
                file.writestr(name, content)
    return path


def link():
    info = zipfile.ZipInfo("link.png")
    info.external_attr = 0o120777 << 16
    return info


GOOD = ("a.png", encoded(rgb(1)))


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([GOOD, ("../evil.png", GOOD[1])], "outside the archive"),
        ([GOOD, ("x/../../evil.png", GOOD[1])], "outside the archive"),
        ([GOOD, ("/tmp/evil.png", GOOD[1])], "an absolute path"),
        ([GOOD, ("C:/evil.png", GOOD[1])], "an absolute path"),
        ([GOOD, ("..\\evil.png", GOOD[1])], "backslash"),
        ([GOOD, GOOD], "named twice"),
        ([GOOD, (link(), b"/etc/passwd")], "a symbolic link"),
    ],
    ids=["dotdot", "inner-dotdot", "absolute", "drive", "backslash", "duplicate", "symlink"],
)
def test_an_unsafe_archive_is_refused_as_a_whole(tmp_path, entries, reason):
    path = archive(tmp_path / "set.zip", entries)
    for options in ({}, {"skip_bad": True}):
        with pytest.raises(DataError, match=f"is refused: entry .* is {reason}|is refused.*{reason}"):
            load(f"zip:{path}", split="all", options=options)
    (finding,) = check(path).findings
    assert finding.fatal
    assert reason in finding.reason
    assert [p.name for p in tmp_path.iterdir()] == ["set.zip"]


def test_a_wrong_crc_is_refused_even_when_skipping(tmp_path):
    path = archive(tmp_path / "set.zip", [GOOD, ("b.png", encoded(rgb(2)))])
    content = bytearray(path.read_bytes())
    content[content.index(GOOD[1]) + len(GOOD[1]) // 2] ^= 1
    path.write_bytes(content)
    for options in ({}, {"skip_bad": True}):
        with pytest.raises(DataError, match="entry 'a.png' is damaged"):
            load(f"zip:{path}", split="all", options=options)
    assert "a.png" in str(check(path))


def test_a_truncated_archive_and_a_file_that_is_none_are_refused(tmp_path):
    path = archive(tmp_path / "set.zip", [GOOD])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="not a readable zip"):
        load(str(path))
    path.write_text("no archive")
    with pytest.raises(DataError, match="not a readable zip"):
        load(str(path))


def test_an_entry_larger_than_allowed_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("sfumato.data.listing.MAX_BYTES", 1000)
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros.png", bytes(100_000))
    assert "100,000 bytes, more than the 1,000 allowed" in str(check(path))


def test_missing_and_empty_sources_say_so(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        load(f"folder:{tmp_path}")
    with pytest.raises(DataError, match="no folder or .zip file"):
        load(f"folder:{tmp_path / 'absent'}")
    (tmp_path / "text.png").write_text("x")
    with pytest.raises(DataError, match="1 of 1 images"):
        load(f"folder:{tmp_path}", options={"skip_bad": True})
    with pytest.raises(OptionError, match="skip_bda.*Did you mean 'skip_bad'"):
        load(f"folder:{tmp_path}", options={"skip_bda": True})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not JSON"),
        ('{"labels": [["a.png"]]}', "must hold"),
        ('{"labels": [["b.png", 1]]}', "no class number >= 0 for 1 images, such as a.png"),
        ('{"labels": [["a.png", -1]]}', "no class number >= 0"),
        ('{"labels": [["a.png", 2.5]]}', "no class number >= 0"),
        ('{"labels": [["a.png", 1]], "classes": ["only"]}', "needs 2 different class names"),
    ],
)
def test_a_malformed_label_file_is_refused(tmp_path, content, reason):
    path = archive(tmp_path / "set.zip", [GOOD, ("dataset.json", content)])
    with pytest.raises(DataError, match=reason):
        load(str(path), split="all")
    assert any(f.fatal and f.name == "" for f in check(path).findings)
    assert load(str(path), split="all", options={"labels": False}).labels is None


def test_images_beside_class_folders_are_ambiguous(tmp_path):
    (tmp_path / "cat").mkdir()
    for name in ("cat/a.png", "b.png"):
        (tmp_path / name).write_bytes(GOOD[1])
    with pytest.raises(DataError, match=r"b\.png and 0 more.*data.labels=false"):
        load(str(tmp_path), split="all")
    assert torch.equal(load(str(tmp_path), split="all", options={"labels": False}).indices, torch.arange(2))
    assert check(tmp_path).duplicates == 1
