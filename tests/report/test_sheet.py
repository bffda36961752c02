"""A sheet shows every image exactly, at its place, and says how the images were chosen."""

from contextvars import copy_context

import pytest
import torch
from PIL import Image

from sfumato.report._canvas import Frame, draw, enlargement
from sfumato.report._text import font as face
from sfumato.report._text import size_of, wrap
from sfumato.report.resolution import draw_at
from sfumato.report.save import description, encode, save, size_on_page
from sfumato.report.sheet import name_seeds, sheet


def noise_images(count: int, channels: int = 1, side: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)


def cut(picture: Image.Image, box: tuple[int, int, int, int], zoom: int) -> torch.Tensor:
    """Return the image in a cell at its own resolution, having checked that every square is of one colour."""
    crop = torch.frombuffer(bytearray(picture.crop(box).tobytes()), dtype=torch.uint8)
    crop = crop.reshape(box[3] - box[1], box[2] - box[0], 3).permute(2, 0, 1)
    small = crop[:, ::zoom, ::zoom]
    assert torch.equal(small.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2), crop)
    return small


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "group"), [(8, 0), (28, 2), (64, 3)])
def test_every_image_stands_unchanged_in_its_cell(channels: int, side: int, group: int) -> None:
    images = noise_images(7, channels, side)
    words = Frame(
        "Title", ["a", "bc", "def"], ["one", "two\nlines"], "corner", "caption " * 40, ["note"] * 7, group, block=2
    )
    picture, layout = draw(images, 3, words)
    for i, image in enumerate(images):
        assert torch.equal(cut(picture, layout.box(i), layout.zoom), image.expand(3, -1, -1))


@pytest.mark.parametrize("scale", [2, 3])
def test_a_higher_resolution_has_more_pixels_and_the_same_size_on_a_page(scale: int, tmp_path) -> None:
    images = noise_images(6)
    words = Frame("Title", ["a", "b"], ["one", "two", "three"], "corner", "caption " * 20, ["note"] * 6, 1, 1)
    small, _ = draw(images, 3, words)
    context = copy_context()
    context.run(draw_at, scale)
    large, layout = context.run(draw, images, 3, words)
    assert layout.zoom == 8 * scale
    for i, image in enumerate(images):
        assert torch.equal(cut(large, layout.box(i), layout.zoom), image.expand(3, -1, -1))
    sizes = [size_on_page(context.run(encode, large)), small.size]
    assert all(abs(a - b) <= 0.05 * b for a, b in zip(*sizes)) and size_on_page(encode(small)) == small.size
    assert draw(images, 3, words)[0].size == small.size  # it ends with its context


@pytest.mark.parametrize("scale", [0, 5, -1])
def test_resolutions_are_bounded(scale: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 4"):
        copy_context().run(draw_at, scale)


def test_cells_are_in_reading_order_and_never_overlap() -> None:
    _, layout = draw(noise_images(12), 4, Frame(notes=["1.5"] * 12, group=2, block=2))
    boxes = [layout.box(i) for i in range(12)]
    for i, box in enumerate(boxes):
        if i % 4:
            assert box[0] > boxes[i - 1][2] and box[1] == boxes[i - 1][1]
        if i >= 4:
            assert box[1] > boxes[i - 4][3] and box[0] == boxes[i - 4][0]
    assert boxes[2][0] - boxes[1][2] > boxes[1][0] - boxes[0][2]  # blocks of two columns stand apart
    assert boxes[8][1] - boxes[4][3] > boxes[4][1] - boxes[0][3]  # and groups of two rows


def test_words_leave_the_images_and_the_border_free() -> None:
    images = torch.full((4, 1, 8, 8), 255, dtype=torch.uint8)  # white on white: what is left is text alone
    long = "Ankle boot with a very long name"
    words = Frame("A title", [long, "b"], [long, "w = 2.5"], "corner", "caption", ["0.1"] * 4)
    picture, layout = draw(images, 2, words)
    for i in range(4):
        assert picture.crop(layout.box(i)).getextrema() == ((255, 255),) * 3
    width, height = picture.size
    for edge in ((0, 0, width, 4), (0, height - 4, width, height), (0, 0, 4, height), (width - 4, 0, width, height)):
        assert picture.crop(edge).getextrema() == ((255, 255),) * 3
    left, top, _, _ = layout.box(0)
    assert picture.crop((0, top, left, layout.box(2)[3])).getextrema()[0][0] < 100  # row labels are there
    assert picture.crop((left, 0, width, top)).getextrema()[0][0] < 100  # and column labels


def test_small_images_are_enlarged_to_a_legible_size() -> None:
    assert all(side * enlargement(side, side) >= 64 for side in range(1, 130))
    assert enlargement(64, 64) == 1


def test_wrapped_lines_fit_and_lose_no_word() -> None:
    text = "uncurated, seeds 0..63; EDM with Heun, 18 steps, NFE 35"
    lines = wrap(text, 120, face(12))
    assert " ".join(lines) == text
    assert all(size_of(line, face(12))[0] <= 121 for line in lines) and len(lines) > 2


@pytest.mark.parametrize(
    ("seeds", "curated", "said"),
    [
        (range(64), False, "Uncurated, seeds 0..63."),
        ([*range(63), 99], True, "CURATED, seeds 0..62, 99."),
        (None, True, "CURATED."),
    ],
)
def test_the_caption_says_how_images_were_chosen(seeds, curated, said, tmp_path) -> None:
    picture = sheet(noise_images(64), seeds=seeds, curated=curated, caption="EDM.")
    assert picture.info["Description"] == f"{said} EDM."
    assert description(save(picture, tmp_path / "deep" / "sheet.png")) == f"{said} EDM."
    with Image.open(tmp_path / "deep" / "sheet.png") as stored:
        assert stored.convert("RGB").tobytes() == picture.tobytes()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["sheet.png"]


def test_two_different_captions_are_two_different_pictures() -> None:
    images = noise_images(8)
    assert sheet(images, seeds=range(8)).tobytes() != sheet(images, seeds=range(1, 9)).tobytes()


def test_named_seeds_are_all_the_seeds() -> None:
    assert name_seeds([2, 1, 0]) == "seeds 2, 1, 0"
    assert name_seeds(range(1000, 1064)) == "seeds 1000..1063"


def test_refusals_name_rule_value_and_remedy(tmp_path) -> None:
    images = noise_images(6)
    with pytest.raises(ValueError, match="5 seeds for 6 images"):
        sheet(images, seeds=range(5))
    with pytest.raises(ValueError, match="3 labels for 2 rows"):
        sheet(images, 3, row_labels=["a", "b", "c"])
    with pytest.raises(TypeError, match="to_uint8"):
        sheet(images.float())
    with pytest.raises(ValueError, match=r"\(6, 0, 8, 8\)"):
        sheet(images[:, :0])
    with pytest.raises(ValueError, match=r"\(0, 1, 8, 8\)"):
        sheet(images[:0])
    with pytest.raises(ValueError, match="at least one column; got 0"):
        sheet(images, 0)
    with pytest.raises(ValueError, match="Name it sheet.png"):
        save(sheet(images), tmp_path / "sheet.jpg")
