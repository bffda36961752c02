"""CelebA's layout, made here: official partition, centred square, folder and archive alike."""

import hashlib
import zipfile

import numpy as np
import pytest
from PIL import Image

from sfumato.core.find import OptionError
from sfumato.data import DataError, celeba, load

PARTS = [0, 0, 1, 2, 0, 2, 1, 0]


def face(i):
    g = np.random.Generator(np.random.Philox(i))
    return np.kron(g.integers(0, 256, (218, 178, 3), dtype=np.uint8)[::2, ::2], np.ones((2, 2, 1), np.uint8))


@pytest.fixture
def made(tmp_path, monkeypatch):
    folder = tmp_path / "celeba"
    (folder / celeba.IMAGES).mkdir(parents=True)
    for i in range(len(PARTS)):
        Image.fromarray(face(i)).save(folder / celeba.IMAGES / f"{i + 1:06d}.jpg", quality=100, subsampling=0)
    partition = "".join(f"{i + 1:06d}.jpg {part}\n" for i, part in enumerate(PARTS))
    (folder / celeba.PARTITION).write_text(partition)
    monkeypatch.setattr(celeba, "PARTITION_MD5", hashlib.md5(partition.encode()).hexdigest())
    return tmp_path


@pytest.mark.parametrize(("split", "part"), [("train", 0), ("val", 1), ("test", 2)])
def test_the_partition_is_the_official_one(made, split, part):
    d = load("celeba", root=made, split=split)
    assert d.indices.tolist() == [i for i, p in enumerate(PARTS) if p == part]
    assert d.shape == (3, 64, 64)
    assert (d.labels, d.split) == (None, split)
    assert d.rule == f"official {split} part; centre crop 178, bicubic to 64, 3 channels"


def test_the_square_is_the_centre(made):
    d = load("celeba", root=made, split="all", size=178)
    for image, i in zip(d.images, d.indices):
        stored = np.asarray(Image.open(made / "celeba" / celeba.IMAGES / f"{i + 1:06d}.jpg"))
        assert np.array_equal(image.permute(1, 2, 0), stored[20:198])


def test_the_archive_gives_the_same(made):
    folder = made / "celeba"
    unpacked = load("celeba", root=made, split="all", size=32)
    with zipfile.ZipFile(folder / f"{celeba.IMAGES}.zip", "w") as archive:
        for file in (folder / celeba.IMAGES).iterdir():
            archive.write(file, f"{celeba.IMAGES}/{file.name}")
            file.unlink()
    (folder / celeba.IMAGES).rmdir()
    packed = load("celeba", root=made, split="all", size=32)
    assert packed.images.equal(unpacked.images)
    first = load("celeba", root=made, split="train", size=32, first=2)
    assert first.indices.tolist() == [0, 1]
    assert first.rule.startswith("official train part; first 2; centre crop 178")


def test_missing_and_altered_files_are_refused(made):
    with pytest.raises(OptionError, match="official val part, so val=0.1 means nothing"):
        load("celeba", root=made, val=0.1)
    (made / "celeba" / celeba.IMAGES / "000002.jpg").unlink()
    with pytest.raises(DataError, match=r"lacks 1 images of CelebA, such as \['000002.jpg'\]"):
        load("celeba", root=made)
    assert len(load("celeba", root=made, split="test")) == 2
    with (made / "celeba" / celeba.PARTITION).open("a") as file:
        file.write("000009.jpg 0\n")
    with pytest.raises(DataError, match="partition.txt is corrupt.*expected md5"):
        load("celeba", root=made, split="test")
    with pytest.raises(DataError, match="is missing. Get it and img_align_celeba.zip from https://mmlab"):
        load("celeba", root=made / "nowhere")
