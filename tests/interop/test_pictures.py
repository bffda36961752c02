"""A person's own pictures: what a model takes, and the sentence where it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.data.dataset import DataError
from sfumato.interop.pictures import read_picture


@pytest.fixture
def rgba(tmp_path: Path) -> tuple[Path, np.ndarray]:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    return tmp_path / "rgba.png", pixels.transpose(2, 0, 1)


def test_transparency_is_a_channel_of_a_model_that_makes_it(rgba: tuple[Path, np.ndarray]) -> None:
    file, pixels = rgba
    assert read_picture(file, [(4, 8, 8)]).equal(torch.from_numpy(pixels))
    small = read_picture(file, [(4, 4, 4)], fit=True)
    alone = [Image.fromarray(plane).resize((4, 4), Image.Resampling.BICUBIC) for plane in pixels]
    assert small.equal(torch.stack([torch.from_numpy(np.array(plane)) for plane in alone]))


def test_what_is_refused_is_said_with_what_can_be_done(rgba: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    for fit in (False, True):
        with pytest.raises(DataError, match=r"rgba.png: transparent pixels; save it without transparency\.$"):
            read_picture(rgba[0], [(3, 8, 8)], fit)
    Image.new("RGB", (8, 8)).save(tmp_path / "rgb.png")
    with pytest.raises(DataError, match=r"rgb.png is RGB 8x8; this needs 5 channels 4x4\.$"):
        read_picture(tmp_path / "rgb.png", [(5, 4, 4)], fit=True)
