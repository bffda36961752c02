"""Non-leaky augmentation: known maps on known images, exact identity, rates, and independence of the batch."""

import math

import pytest
import torch

from sfumato.data import augment
from sfumato.data.augment import apply, draw, edm_augment, labels_of


@pytest.fixture
def images():
    """Smooth random images, so that resampling them is accurate."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.randn(6, 2, 4, 4, generator=g, dtype=torch.float64)
    return torch.nn.functional.interpolate(coarse, size=32, mode="bicubic").tanh()


def one(**values):
    parameters = torch.zeros(1, 8, dtype=torch.float64)
    for name, value in values.items():
        parameters[0, getattr(augment, name)] = value
    return parameters


def changed(images, **values):
    return apply(images, one(**values).expand(len(images), -1))


def test_nothing_drawn_means_bit_identical_images_and_zero_labels(images):
    parameters = draw(torch.arange(len(images)), seed=0, p=0.0)
    parameters[:, augment.X_FLIP] = 0
    assert apply(images, parameters).equal(images)
    assert labels_of(parameters).equal(torch.zeros(len(images), 9, dtype=torch.float64))


def test_known_maps(images):
    assert changed(images, X_FLIP=1).equal(images.flip(3))
    assert changed(images, Y_FLIP=1).equal(images.flip(2))
    close = {"atol": 1e-9, "rtol": 0}
    assert torch.allclose(changed(images, THETA=math.pi), images.flip(2, 3), **close)
    assert torch.allclose(changed(images, THETA=math.pi / 2), images.rot90(-1, (2, 3)), **close)  # clockwise
    right, down = changed(images, RIGHT=1.0), changed(images, DOWN=-0.5)
    assert torch.allclose(right[..., 4:], images[..., :-4], **close)  # 32/8 pixels
    assert torch.allclose(down[..., :-2, :], images[..., 2:, :], **close)


def test_scale_and_anisotropy_move_a_blob_where_they_should():
    """A blob at (x, y) pixels from the centre goes to the image of that point under the map."""
    size, x, y = 64, 9.0, -5.0
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2

    def blob(at_x, at_y):
        return torch.exp(-((axis[None] - at_x) ** 2 + (axis[:, None] - at_y) ** 2) / 18)[None, None]

    def centre(image):
        w = image[0, 0] / image.sum()
        return float((w.sum(0) * axis).sum()), float((w.sum(1) * axis).sum())

    grown = centre(changed(blob(x, y), SIZE=2.0))
    assert grown == pytest.approx((x * 2**0.4, y * 2**0.4), abs=0.05)
    wide = centre(changed(blob(x, y), ANISOTROPY=1.0))
    assert wide == pytest.approx((x * 2**0.2, y * 2**-0.2), abs=0.05)
    tall = centre(changed(blob(x, y), ANISOTROPY=1.0, PHI=math.pi / 2))
    assert tall == pytest.approx((x * 2**-0.2, y * 2**0.2), abs=0.05)
    order = centre(changed(blob(x, y), THETA=math.pi / 2, RIGHT=0.5))  # turn first, then shift by 4 pixels
    assert order == pytest.approx((-y + 4, x), abs=0.05)


def test_a_shift_is_in_units_of_each_side():
    image = torch.zeros(1, 1, 16, 32, dtype=torch.float64)
    image[..., 8, 16] = 1.0
    moved = changed(image, RIGHT=1.0, DOWN=1.0)
    assert divmod(int(moved.flatten().argmax()), 32) == (8 + 2, 16 + 4)


def test_opposite_maps_undo_each_other(images):
    inner = (..., slice(10, 22), slice(10, 22))
    for values in ({"SIZE": 0.5}, {"THETA": 0.4}, {"ANISOTROPY": 0.5, "PHI": 0.3}, {"RIGHT": 0.3, "DOWN": 0.2}):
        back = {k: v if k == "PHI" else -v for k, v in values.items()}
        there_and_back = changed(changed(images, **values), **back)
        error = (there_and_back[inner] - images[inner]).abs()
        assert error.mean() < 0.006  # two bicubic resamplings
        assert (changed(images, **values)[inner] - images[inner]).abs().mean() > 5 * error.mean()


def test_labels_are_those_of_the_paper():
    found = labels_of(one(X_FLIP=1, Y_FLIP=1, SIZE=0.7, THETA=0.5, PHI=2.0, ANISOTROPY=-1.5, RIGHT=0.1, DOWN=-0.2))
    expected = [1, 1, 0.7, math.cos(0.5) - 1, math.sin(0.5), -1.5 * math.cos(2), -1.5 * math.sin(2), 0.1, -0.2]
    assert found[0].tolist() == pytest.approx(expected)
    assert found.shape == (1, augment.LABELS)


def test_rates_and_spreads():
    n, p = 20000, 0.12
    drawn = draw(torch.arange(n), seed=4, p=p)

    def within(share, expected):
        return abs(share - expected) < 4 * (expected * (1 - expected) / n) ** 0.5

    assert within(drawn[:, augment.X_FLIP].mean(), 0.5)
    assert within(drawn[:, augment.Y_FLIP].mean(), p / 2)
    for column in (augment.SIZE, augment.THETA, augment.ANISOTROPY, augment.RIGHT):
        assert within(float((drawn[:, column] != 0).double().mean()), p)
    assert ((drawn[:, augment.RIGHT] != 0) == (drawn[:, augment.DOWN] != 0)).all()
    sizes = drawn[:, augment.SIZE][drawn[:, augment.SIZE] != 0]
    assert sizes.std().item() == pytest.approx(1, abs=4 / (2 * len(sizes)) ** 0.5)
    angles = drawn[:, augment.THETA][drawn[:, augment.THETA] != 0]
    assert angles.abs().max() <= math.pi
    assert angles.square().mean().item() == pytest.approx(math.pi**2 / 3, rel=0.06)
    both = ((drawn[:, augment.SIZE] != 0) & (drawn[:, augment.THETA] != 0)).double().mean()
    assert within(float(both), p * p)


def test_samples_do_not_depend_on_their_batch(images):
    positions = torch.tensor([5, 900, 17, 2, 44, 10**12])
    whole, labels = edm_augment(images, positions, seed=3, p=0.9)
    for i in range(len(images)):
        alone, label = edm_augment(images[i : i + 1], positions[i : i + 1], seed=3, p=0.9)
        assert torch.allclose(alone[0], whole[i], atol=1e-12)
        assert label[0].equal(labels[i])
    assert labels.dtype == torch.float32
    assert not labels.equal(edm_augment(images, positions, seed=4, p=0.9)[1])


def test_a_constant_image_stays_constant():
    flat = torch.full((50, 3, 8, 8), 0.25)
    out, _ = edm_augment(flat, torch.arange(50), seed=0, p=1.0)
    assert out.dtype == torch.float32
    assert torch.allclose(out, flat, atol=1e-5)


def test_p_is_a_probability():
    with pytest.raises(ValueError, match=r"p is a probability in \[0, 1\]; got 1.5"):
        edm_augment(torch.zeros(1, 1, 4, 4), torch.arange(1), seed=0, p=1.5)
