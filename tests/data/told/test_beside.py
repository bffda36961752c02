"""The image beside: made from the image it belongs to, paired by place, and mirrored with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.core.find import UnknownNameError
from sfumato.core.images import to_float
from sfumato.data import DataError, load
from sfumato.data.loader import Loader
from sfumato.data.told.beside import told_image
from sfumato.data.transforms import box_mean


def test_low_is_the_box_mean_at_its_own_size_and_is_told_at_the_models():
    data = load("digits", condition="low:2", first=16)
    assert data.beside.equal(box_mean(data.images, 4)) and data.condition == "low:2"
    x0, told, _ = Loader(data, seed=0).batch(0, 16)
    assert told.image.shape == x0.shape and told.vector is None
    assert float((told.image - x0).square().mean()) < float((told.image.roll(1, 0) - x0).square().mean())


def test_it_is_mirrored_with_its_image():
    data = load("digits", condition="low:2", first=64)
    loader = Loader(data, seed=0, flip=True)
    _, told, positions = loader.batch(0, 64)
    plain = told_image(data.beside[loader.order(positions)], (8, 8))
    mirrored = (told.image - plain.flip(-1)).abs().amax((1, 2, 3)) < 1e-5
    same = (told.image - plain).abs().amax((1, 2, 3)) < 1e-5
    x0 = to_float(data.images[loader.order(positions)])
    turned = (loader.batch(0, 64)[0] - x0.flip(-1)).abs().amax((1, 2, 3)) == 0
    assert bool((mirrored | same).all()) and mirrored.equal(turned | (mirrored & same))


def grey(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), value, dtype=np.uint8)).save(path)


def test_a_pair_is_the_file_of_the_same_name(tmp_path):
    """Whatever its format, in every split; a file without a pair is named."""
    for i in range(30):
        grey(tmp_path / "clean" / f"{i}.png", 4 * i)
        grey(tmp_path / "other" / f"{i}.bmp", 8 * i)
    clean, pairs = f"folder:{tmp_path / 'clean'}", f"pairs:{tmp_path / 'other'}"
    seen = 0
    for split in ("train", "val", "test"):
        data = load(clean, split=split, val=0.2, test=0.2, condition=pairs)
        assert data.beside.equal(2 * data.images) and len(data)
        seen += len(data)
    assert seen == 30
    (tmp_path / "other" / "5.bmp").rename(tmp_path / "other" / "five.bmp")  # as many files, and one is not the other's
    with pytest.raises(DataError, match="2 have no pair, such as 5"):
        load(clean, split="all", condition=pairs)


def test_pairs_of_official_splits_are_refused(tmp_path):
    with pytest.raises(DataError, match="pairs files by name, and digits is no source of files"):
        load("digits", condition=f"pairs:{tmp_path}")
    for part in ("train", "test"):
        for i in range(4):
            grey(tmp_path / "clean" / part / f"{i}.png", 10 * i)
            grey(tmp_path / "other" / part / f"{i}.png", 20 * i)
    with pytest.raises(DataError, match="folders of splits stand there .test, train.. Name one of them on both sides"):
        load(f"folder:{tmp_path / 'clean'}", split="test", condition=f"pairs:{tmp_path / 'other'}")
    data = load(f"folder:{tmp_path / 'clean/test'}", split="all", condition=f"pairs:{tmp_path / 'other/test'}")
    assert data.beside.equal(2 * data.images)


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("low:3", "a side that is a multiple of 3; got 8"),
        ("low:x", "K = 2, 3, ...; got 'low:x'"),
        ("grey", "the luma of colour images; these have 1 channels"),
        ("pairs", "pairs:FOLDER; got 'pairs'"),
    ],
)
def test_what_cannot_be_made_is_refused(condition, said):
    with pytest.raises(ValueError, match=said):
        load("digits", condition=condition)


def test_grey_is_the_luma_and_an_unknown_kind_offers_the_nearest(tmp_path):
    for i in range(3):
        Image.fromarray(np.full((4, 4, 3), (200, 10 * i, 0), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    data = load(f"folder:{tmp_path}", split="all", condition="grey")
    assert data.beside.shape == (3, 1, 4, 4) and torch.equal(data.beside[0, 0, 0, 0], torch.tensor(60).byte())
    with pytest.raises(UnknownNameError, match="Did you mean 'grey'"):
        load("digits", condition="gray")
