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


def test_a_pair_is_the_file_at_the_same_place(tmp_path):
    for name, factor in (("clean", 10), ("other", 20)):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.fromarray(np.full((4, 4), factor * i, dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    data = load(f"folder:{tmp_path / 'clean'}", split="all", condition=f"pairs:{tmp_path / 'other'}")
    assert data.beside.equal(2 * data.images)
    (tmp_path / "other" / "5.png").unlink()
    with pytest.raises(DataError, match="holds 5 images, fewer than the source"):
        load(f"folder:{tmp_path / 'clean'}", split="all", condition=f"pairs:{tmp_path / 'other'}")


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
