"""One split for every model: by the hash of the image, independent of order, names and size."""

import numpy as np
import pytest
import torch

from sfumato.data import Dataset, load, overlap
from sfumato.data.splits import fractions, join, split_by_hash, split_official


def noise(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 1, 4, 4), generator=g, dtype=torch.uint8)
    return Dataset("noise", images, None, (), "all", torch.arange(n))


def sides(d, **shares):
    return {s: split_by_hash(d, s, **shares) for s in ("train", "val", "test")}


def test_sides_divide_the_whole():
    d = noise(2000)
    parts = sides(d, val=0.1, test=0.2)
    together = torch.cat([p.indices for p in parts.values()])
    assert sorted(together.tolist()) == list(range(2000))
    assert all(p.split == s for s, p in parts.items())
    assert parts["val"].rule == "sha256 fraction in [0.2, 0.3)"
    for s, share in (("val", 0.1), ("test", 0.2)):  # binomial: within 4 standard deviations
        assert abs(len(parts[s]) - 2000 * share) < 4 * (2000 * share * (1 - share)) ** 0.5


def test_fraction_is_the_leading_bits_of_the_hash():
    rows = np.zeros((3, 32), dtype=np.uint8)
    rows[1, 0] = 0x80
    rows[2] = 255
    assert fractions(rows).tolist() == [0.0, 0.5, 1 - 2.0**-53]


def test_duplicates_fall_on_one_side():
    d = noise(300)
    twice = Dataset("twice", d.images.repeat(2, 1, 1, 1), None, (), "all", torch.arange(600))
    parts = sides(twice, val=0.3, test=0.3)
    for p in parts.values():
        assert set((p.indices % 300).tolist()) == set(p.indices[p.indices < 300].tolist())
        assert len(p) == 2 * int((p.indices < 300).sum())
    assert overlap(parts["test"], parts["train"]) == 0


def test_membership_does_not_depend_on_order_or_on_what_else_is_there():
    d = noise(500)
    reordered = d.subset(torch.arange(499, -1, -1))
    few = d.subset(range(100))
    train = set(split_by_hash(d, "train", val=0.2).indices.tolist())
    assert set(split_by_hash(reordered, "train", val=0.2).indices.tolist()) == train
    assert set(split_by_hash(few, "train", val=0.2).indices.tolist()) == {i for i in train if i < 100}


def test_a_larger_share_only_moves_images_from_train_to_val():
    d = noise(500)
    small, large = (set(split_by_hash(d, "val", val=v).indices.tolist()) for v in (0.1, 0.3))
    assert small < large


@pytest.mark.parametrize("change", [{"size": 4}, {"channels": 3}, {"pad": 16}, {"size": 2, "channels": 3, "pad": 8}])
def test_one_split_for_all_sizes(change):
    plain, changed = (load("digits", split="val", val=0.2, **c) for c in ({}, change))
    assert plain.index_hash == changed.index_hash
    assert plain.content_hash != changed.content_hash


def test_official_parts():
    a, b = noise(100), noise(40, seed=1)
    read = {"train": a, "test": b}.__getitem__
    assert split_official(read, "test", val=0.5).images.equal(b.images)
    train, val = (split_official(read, s, val=0.25) for s in ("train", "val"))
    assert sorted(torch.cat([train.indices, val.indices]).tolist()) == list(range(100))
    assert len(split_official(read, "train")) == 100
    whole = split_official(read, "all")
    assert whole.indices.tolist() == list(range(140))
    assert whole.images.equal(torch.cat([a.images, b.images]))
    assert join(a, b).split == "all"


def test_bad_splits_are_refused():
    d = noise(10)
    with pytest.raises(ValueError, match="Available: train, val, test, all"):
        split_by_hash(d, "valid")
    with pytest.raises(ValueError, match="val split of noise is empty"):
        split_by_hash(d, "val")
    with pytest.raises(ValueError, match="leave something to train on"):
        split_by_hash(d, "train", val=0.5, test=0.5)
    with pytest.raises(ValueError, match="official test part"):
        load("mnist", test=0.1)
