"""Identity, subsets and statistics of a dataset."""

import hashlib
import json

import numpy as np
import pytest
import torch

from sfumato.data import Dataset, load, overlap, sigma_data
from sfumato.data.hashing import hash_image
from sfumato.data.order import ranking


def make(n=30, shape=(3, 4, 5), seed=0, classes=("a", "b", "c")):
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, *shape), generator=g, dtype=torch.uint8)
    return Dataset("made", images, torch.arange(n) % 3, classes, "all", torch.arange(n))


def test_hash_is_over_shape_and_pixels():
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    assert hash_image(pixels) == hashlib.sha256(b"1x3x4" + bytes(range(12))).digest()
    assert hash_image(pixels) != hash_image(pixels.reshape(1, 4, 3))
    strided = np.arange(24, dtype=np.uint8).reshape(1, 3, 8)[:, :, ::2]
    assert hash_image(strided) == hash_image(strided.copy())


def test_content_hash_ignores_order_and_labels_and_sees_one_pixel():
    a = make()
    order = torch.from_numpy(ranking(len(a), 3, 0))
    shuffled = Dataset("other name", a.images[order], None, (), "train", a.indices[order])
    assert shuffled.content_hash == a.content_hash
    assert shuffled.index_hash == a.index_hash
    changed = a.images.clone()
    changed[7, 1, 2, 3] ^= 1
    assert Dataset("made", changed, None, (), "all", a.indices).content_hash != a.content_hash
    twice = Dataset("made", a.images.repeat(2, 1, 1, 1), None, (), "all", torch.arange(60))
    assert twice.content_hash != a.content_hash


def test_ranking_is_pinned():
    """The order of a run must not change with a library: these are recorded values."""
    assert ranking(10, 0, 0).tolist() == RANKING_0_0
    assert ranking(10, 2**63, 5).tolist() == RANKING_2_63_5
    assert sorted(ranking(1000, 1, 2)) == list(range(1000))


def test_ranking_is_uniform():
    """Each of the 24 orders of 4 items comes up equally often: chi-square with 23 degrees of freedom."""
    draws = 4800
    counts: dict[tuple, int] = {}
    for stream in range(draws):
        key = tuple(ranking(4, 11, stream))
        counts[key] = counts.get(key, 0) + 1
    expected = draws / 24
    chi2 = sum((c - expected) ** 2 / expected for c in counts.values())
    assert len(counts) == 24
    assert chi2 < 49.7  # the 99.9% point


def test_take_is_nested_deterministic_and_without_replacement():
    d = make()
    a, b = d.take(20, seed=5), d.take(8, seed=5)
    assert a.indices[:8].equal(b.indices)
    assert len(a.indices.unique()) == 20
    assert not a.indices.equal(d.take(20, seed=6).indices)
    assert d.take(30, seed=1).content_hash == d.content_hash
    assert a.rule == "20 drawn with seed 5"
    with pytest.raises(ValueError, match="at most 30"):
        d.take(31, seed=0)


def test_subset_keeps_everything_aligned():
    d = make()
    d.image_hashes  # noqa: B018 - fills the cache that subset carries over
    for where in (d.labels == 1, [4, 1, 28], torch.tensor([0])):
        part = d.subset(where)
        assert part.images.equal(d.images[part.indices])
        assert part.labels.equal(d.labels[part.indices])
        fresh = Dataset("f", part.images, None, (), "all", part.indices)
        assert (part.image_hashes == fresh.image_hashes).all()
    with pytest.raises(ValueError, match=r"lie in \[0, 30\)"):
        d.subset([30])
    with pytest.raises(ValueError, match="mask"):
        d.subset(torch.ones(29, dtype=torch.bool))


def test_keep_classes_renumbers_in_the_order_given():
    d = make()
    kept = d.keep_classes(("c", 0))
    assert kept.classes == ("c", "a")
    assert kept.images.equal(d.images[kept.indices])
    for new, old in ((0, 2), (1, 0)):
        assert kept.indices[kept.labels == new].equal(d.indices[d.labels == old])
    assert kept.content_hash == d.subset(d.labels != 1).content_hash
    with pytest.raises(ValueError, match="Unknown class 'd' of made. Available: 0 a, 1 b, 2 c"):
        d.keep_classes(["d"])
    with pytest.raises(ValueError, match="different"):
        d.keep_classes(["a", 0])
    with pytest.raises(ValueError, match="no labels"):
        Dataset("u", d.images, None, (), "all", d.indices).keep_classes([0])


def test_overlap_counts_shared_pixels():
    d = make()
    assert overlap(d.subset(range(10)), d.subset(range(7, 30))) == 3
    assert overlap(d, make(seed=1)) == 0


def test_sigma_data_is_the_standard_deviation():
    d = make(n=64)
    assert sigma_data(d) == pytest.approx(float((d.images.double() / 127.5 - 1).std(correction=0)), rel=1e-12)
    extremes = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)
    two = Dataset("two", extremes, None, (), "all", torch.arange(2))
    assert sigma_data(two) == 1.0
    with pytest.raises(ValueError, match="empty"):
        sigma_data(d.subset([]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(30, 3, 4, 5)}, "uint8"),
        ({"labels": torch.full((30,), 3)}, r"Labels of made must lie in \[0, 3\)"),
        ({"labels": torch.full((30,), -1)}, "must lie in"),
        ({"labels": torch.zeros(29, dtype=torch.int64)}, "one for each image"),
        ({"labels": None}, "unlabelled dataset has no classes"),
        ({"indices": torch.arange(29)}, "one for each image"),
        ({"split": "valid"}, "train, val, test, all"),
    ],
)
def test_a_malformed_dataset_is_refused(change, message):
    d = make()
    fields = {k: getattr(d, k) for k in ("name", "images", "labels", "classes", "split", "indices")}
    with pytest.raises(ValueError, match=message):
        Dataset(**(fields | change))


def test_identity_tells_sets_apart_and_is_json():
    d = make()
    stored = json.loads(json.dumps(d.identity()))
    assert stored == d.identity()
    assert stored["content_hash"] == d.content_hash
    assert (stored["n"], stored["shape"]) == (30, [3, 4, 5])
    others = [d.take(29, 0), d.take(29, 1), d.keep_classes(["a"]), make(seed=1)]
    assert len({x.content_hash for x in [d, *others]}) == 5


def test_digits_ship_with_the_package():
    d = load("digits", split="all")
    assert torch.bincount(d.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert sorted(d.images.unique().tolist()) == [round(255 * k / 16) for k in range(17)]
    assert d.labels[:10].tolist() == list(range(10))
    assert d.content_hash == DIGITS_HASH


RANKING_0_0 = [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
RANKING_2_63_5 = [6, 0, 5, 7, 9, 2, 4, 3, 8, 1]
DIGITS_HASH = "243e3536d32adbb16b9b150b706eae04669fcb6eef9664a42574c546db14299b"
