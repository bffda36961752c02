"""Exact changes of size and channels."""

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.data.transforms import box_mean, pad_black, to_channels


def test_box_mean_is_the_mean_to_nearest_with_halves_up():
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5000, 2, 6, 6), generator=g, dtype=torch.uint8)
    for size in (1, 2, 3):
        k = 6 // size
        mean = images.double().reshape(5000, 2, size, k, size, k).mean((3, 5))
        assert box_mean(images, size).equal((mean + 0.5).floor().to(torch.uint8))
    assert box_mean(images, 6) is images
    assert box_mean(torch.full((1, 1, 4, 4), 255, dtype=torch.uint8), 2).unique().tolist() == [255]


def test_padding_is_black_and_centred():
    images = torch.full((1, 1, 28, 28), 9, dtype=torch.uint8)
    out = pad_black(images, 32)
    assert out.shape == (1, 1, 32, 32)
    assert out[..., 2:30, 2:30].equal(images)
    assert int(out.sum()) == int(images.sum())


def test_grey_is_pillows_grey():
    rgb = np.random.Generator(np.random.Philox(1)).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    ours = to_channels(torch.from_numpy(rgb).permute(2, 0, 1)[None], 1)
    assert np.array_equal(ours[0, 0].numpy(), np.asarray(Image.fromarray(rgb).convert("L")))
    assert to_channels(to_channels(ours, 3), 1).equal(ours)


def test_impossible_changes_are_refused():
    images = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    with pytest.raises(ValueError, match="Valid sizes for 28: 1, 2, 4, 7, 14, 28"):
        box_mean(images, 16)
    with pytest.raises(ValueError, match="Use size= to shrink"):
        pad_black(images, 16)
    with pytest.raises(ValueError, match="1 channels into 4"):
        to_channels(images, 4)
