"""Samples are a pure function of (seed, position)."""

import pytest
import torch

from sfumato.core.images import to_uint8
from sfumato.data import Dataset, Loader, load


@pytest.fixture(scope="module")
def numbered():
    """37 asymmetric images whose first two pixels name them."""
    images = torch.zeros(37, 1, 2, 3, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(37, dtype=torch.uint8) + 1
    return Dataset("numbered", images, torch.arange(37) % 5, tuple("abcde"), "train", torch.arange(37))


def collect(loader, bounds):
    parts = [loader.batch(a, b - a) for a, b in zip(bounds[:-1], bounds[1:])]
    return tuple(torch.cat(column) for column in zip(*parts))


@pytest.mark.parametrize("flip", [False, True])
def test_any_batching_gives_the_same_samples(numbered, flip):
    whole = Loader(numbered, 3, flip=flip).batch(0, 150)
    ragged = collect(Loader(numbered, 3, flip=flip), [0, 1, 8, 36, 40, 111, 150])
    assert all(a.equal(b) for a, b in zip(whole, ragged))
    ranks = [Loader(numbered, 3, flip=flip) for _ in range(2)]  # rank r takes its half of each global batch of 30
    shares = [ranks[r].batch(30 * step + 15 * r, 15) for step in range(5) for r in range(2)]
    assert all(a.equal(torch.cat(b)) for a, b in zip(whole, zip(*shares)))
    resumed = Loader(numbered, 3, flip=flip).batch(90, 60)  # mid-epoch, in a fresh process's state
    assert all(a[90:].equal(b) for a, b in zip(whole, resumed))


def test_an_epoch_visits_each_image_once_and_epochs_differ(numbered):
    loader = Loader(numbered, 0)
    epochs = loader.order(torch.arange(37 * 4)).reshape(4, 37)
    for e in epochs:
        assert sorted(e.tolist()) == list(range(37))
    assert len({tuple(e.tolist()) for e in epochs}) == 4
    assert not Loader(numbered, 1).order(torch.arange(37)).equal(epochs[0])


def test_order_answers_positions_in_any_order(numbered):
    loader = Loader(numbered, 0)
    positions = torch.tensor([500, 3, 40, 120, 3])
    one_by_one = [int(loader.order(torch.tensor([p]))) for p in positions.tolist()]
    assert loader.order(positions).tolist() == one_by_one


def test_remaining_samples_after_a_stop_are_neither_repeated_nor_missed(numbered):
    """Stop after 4 batches of 7, go on with batches of 3: the epoch still holds each image once."""
    first = [Loader(numbered, 9).order(torch.arange(7 * i, 7 * i + 7)) for i in range(4)]
    rest = [Loader(numbered, 9).order(torch.arange(28 + 3 * i, 31 + 3 * i)) for i in range(3)]
    assert sorted(torch.cat(first + rest).tolist()) == list(range(37))


def test_pixels_and_labels_belong_together_and_round_trip(numbered):
    x0, label, positions = Loader(numbered, 2).batch(10, 50)
    assert x0.dtype == torch.float32
    name = to_uint8(x0)[:, 0, 0, 0].long() - 1
    assert name.equal(Loader(numbered, 2).order(positions))
    assert label.equal(numbered.labels[name])
    assert (x0.min(), x0[..., 1, :].max()) == (-1.0, -1.0)


def test_flips_mirror_half_of_the_samples_left_to_right(numbered):
    x0, _, _ = Loader(numbered, 0, flip=True).batch(0, 4000)
    plain, _, _ = Loader(numbered, 0).batch(0, 4000)
    mirrored = x0[:, 0, 0, 2] > -1
    assert x0[mirrored].equal(plain[mirrored].flip(-1))
    assert x0[~mirrored].equal(plain[~mirrored])
    assert abs(int(mirrored.sum()) - 2000) < 4 * 1000**0.5


def test_flips_of_one_image_differ_between_epochs(numbered):
    x0, _, positions = Loader(numbered, 0, flip=True).batch(0, 37 * 40)
    image = Loader(numbered, 0).order(positions)
    sides = x0[image == 5][:, 0, 0, 2] > -1
    assert 0 < int(sides.sum()) < 40


def test_unlabelled_data_has_no_labels():
    d = load("digits")
    bare = Dataset("bare", d.images, None, (), "train", d.indices)
    assert Loader(bare).batch(0, 4)[1] is None


def test_bad_requests_are_refused(numbered):
    with pytest.raises(ValueError, match="position >= 0"):
        Loader(numbered).batch(-1, 3)
    with pytest.raises(ValueError, match="at least one sample"):
        Loader(numbered).batch(0, 0)
    with pytest.raises(ValueError, match="position is >= 0"):
        Loader(numbered).order(torch.tensor([-1]))
    with pytest.raises(ValueError, match="empty"):
        Loader(numbered.subset([]))
    with pytest.raises(ValueError, match=r"seed must lie in \[0, 2\*\*64\); got -1"):
        Loader(numbered, seed=-1)
