"""Folders and archives: labels, order, one split for all sizes, crops and filters."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.core.find import UnknownNameError
from sfumato.data import DataError, load
from sfumato.data.decoding import crop_and_resize
from sfumato.data.gathering import Shape


def picture(seed, height=12, width=12, channels=3):
    g = np.random.Generator(np.random.Philox(seed))
    return g.integers(0, 256, (height, width, channels), dtype=np.uint8)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def tree(tmp_path):
    """30 pictures in three class folders, one of them nested and one with an upper-case suffix."""
    top = tmp_path / "pets"
    for i in range(30):
        name = ("dog/deep/er", "cat", "Zebra")[i % 3] + f"/{i:02d}" + (".PNG" if i == 4 else ".png")
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(png(picture(i)))
    return top


def zipped(top, path, extra=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(top.rglob("*"), reverse=True):
            if file.is_file():
                archive.write(file, file.relative_to(top).as_posix())
        for name, content in extra:
            archive.writestr(name, content)
    return path


def test_a_folder_is_read_in_the_order_of_its_names(tree):
    d = load(f"folder:{tree}", split="all")
    assert d.name == "pets"
    assert d.classes == ("Zebra", "cat", "dog")
    names = sorted(p.relative_to(tree).as_posix() for p in tree.rglob("*.[pP][nN][gG]"))
    for name, image, label, index in zip(names, d.images, d.labels, d.indices):
        assert np.array_equal(image.permute(1, 2, 0), picture(int(name.split("/")[-1][:2])))
        assert d.classes[label] == name.split("/")[0]
        assert names[index] == name


def test_a_zip_of_a_folder_is_the_same_dataset(tree, tmp_path):
    path = zipped(tree, tmp_path / "pets.zip")
    for split in ("train", "test", "all"):
        a, b = load(str(tree), split=split), load(str(path), split=split)
        assert a.images.equal(b.images)
        assert a.labels.equal(b.labels)
        assert (a.name, a.classes, a.rule, a.index_hash) == (b.name, b.classes, b.rule, b.index_hash)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pets", "pets.zip"]


def test_content_does_not_depend_on_names_or_codec(tree, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for i in range(30):
        Image.fromarray(picture(i)).save(other / f"{97 * i % 31:02d}.bmp")
    a, b = load(str(tree)), load(str(other))
    assert a.content_hash == b.content_hash
    assert b.labels is None


def test_the_split_is_one_for_all_sizes_and_channels(tree):
    plain = load(str(tree), split="test", test=0.4)
    for change in ({"size": 8}, {"size": 24, "channels": 1}, {"pad": 16}, {"options": {"filter": "box", "crop": 6}}):
        assert load(str(tree), split="test", test=0.4, **change).index_hash == plain.index_hash
    train = load(str(tree), split="train", test=0.4)
    assert sorted(torch.cat([plain.indices, train.indices]).tolist()) == list(range(30))


def test_labels_from_dataset_json(tree, tmp_path):
    names = sorted(p.relative_to(tree).as_posix() for p in tree.rglob("*.[pP][nN][gG]"))
    given = {name: (7 * i) % 4 for i, name in enumerate(names)}
    content = json.dumps({"labels": list(map(list, given.items()))})
    d = load(str(zipped(tree, tmp_path / "a.zip", [("dataset.json", content)])), split="all")
    assert d.classes == ("0", "1", "2", "3")
    assert d.labels.tolist() == [given[name] for name in names]
    named = json.dumps({"labels": list(map(list, given.items())), "classes": ["w", "x", "y", "z"]})
    assert load(str(zipped(tree, tmp_path / "b.zip", [("dataset.json", named)]))).classes == ("w", "x", "y", "z")
    bare = load(str(zipped(tree, tmp_path / "c.zip", [("dataset.json", '{"labels": null}')])), split="all")
    assert bare.labels is None
    (tree / "dataset.json").write_text(named)
    assert load(str(tree), split="all").labels.equal(d.labels)


def test_grey_folders_have_one_channel(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(png(picture(i, channels=1)))
    d = load(str(tmp_path), split="all")
    assert d.shape == (1, 12, 12)
    rgb = load(str(tmp_path), split="all", channels=3)
    assert rgb.images[:, 1:2].equal(d.images)


def test_a_link_that_closes_a_circle_ends(tree):
    (tree / "cat" / "again").symlink_to(tree)
    assert len(load(str(tree), split="all")) == 30


def test_a_crop_is_centred_and_exact():
    pixels = picture(0, height=9, width=14).transpose(2, 0, 1)
    assert np.array_equal(crop_and_resize(pixels, 9), pixels[:, :, 2:11])
    assert np.array_equal(crop_and_resize(pixels, 4, crop=4), pixels[:, 2:6, 5:9])


def test_a_box_filter_by_a_whole_factor_is_the_mean():
    pixels = picture(0, 24, 24).transpose(2, 0, 1)
    mean = pixels.reshape(3, 8, 3, 8, 3).mean((2, 4))
    assert np.abs(crop_and_resize(pixels, 8, filter="box") - mean).max() < 1  # Pillow rounds after each axis


@pytest.mark.parametrize("filter", ["box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_filters_do_not_alias(filter):
    """A checkerboard of single pixels shrinks to its mean, except by nearest, which picks one colour."""
    board = np.indices((64, 64)).sum(0) % 2 * 200
    small = crop_and_resize(board.astype(np.uint8)[None], 8, filter=filter)
    assert np.abs(small.astype(int) - 100).max() <= 3
    picked = crop_and_resize(board.astype(np.uint8)[None], 8, filter="nearest")
    assert set(np.unique(picked)) <= {0, 200}


def test_size_crop_and_filter_reach_the_images_and_the_rule(tree):
    d = load(str(tree), split="all", size=4, channels=1, options={"crop": 8, "filter": "box"})
    assert d.shape == (1, 4, 4)
    assert d.rule == "centre crop 8, box to 4, 1 channels"
    cut = load(str(tree), split="all", options={"crop": 8})
    assert cut.rule == "centre crop 8"
    assert cut.images.equal(load(str(tree), split="all").images[:, :, 2:10, 2:10])


def test_impossible_shapes_are_refused(tree):
    with pytest.raises(UnknownNameError, match="Unknown filter 'lancoz'. Did you mean 'lanczos'?"):
        load(str(tree), options={"filter": "lancoz"})
    with pytest.raises(UnknownNameError, match="alpha policy 'blak'. Did you mean 'black'?"):
        load(str(tree), options={"alpha": "blak"})
    with pytest.raises(ValueError, match="channels is 1 or 3, and with alpha=keep one more, 2 or 4; got 4"):
        Shape(channels=4)
    with pytest.raises(ValueError, match="at least 1 pixel; got 0"):
        load(str(tree), size=0)
    with pytest.raises(DataError, match="too few to cut 13x13"):
        load(str(tree), options={"crop": 13})
