"""Nearest neighbours, precision and recall on known sets, and what copying looks like."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sfumato.metrics.memorization import copies, memorization, two_sample
from sfumato.metrics.neighbours import inside, nearest
from sfumato.metrics.prdc import coverage, density, precision, recall, share


def brute(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((x[:, None, :] - y[None, :, :]) ** 2).sum(-1)


def cloud(n: int, seed: int, d: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize("block", [7, 32, 500])
def test_neighbours_equal_brute_force_for_any_block(block: int) -> None:
    x, y = cloud(53, 0), cloud(71, 1)
    distance, index = nearest(x, y, 4, block=block)
    truth = np.argsort(brute(x, y), axis=1)[:, :4]
    np.testing.assert_array_equal(index, truth)
    np.testing.assert_allclose(distance, np.take_along_axis(brute(x, y), truth, 1), rtol=1e-12)
    alone = brute(y, y) + np.diag(np.full(71, np.inf))
    np.testing.assert_array_equal(nearest(y, y, 3, same=True, block=block)[1], np.argsort(alone, axis=1)[:, :3])


def test_an_exact_copy_of_image_7_returns_7_at_distance_zero() -> None:
    train = (cloud(500, 2, d=300) * 20 + 1e4).astype(np.float32)
    distance, index = nearest(train[[7, 7, 123]], train)
    assert index[:, 0].tolist() == [7, 7, 123]
    assert (distance == 0).all()


def test_the_boundary_belongs_to_closed_balls_only() -> None:
    grid = np.arange(10.0)[:, None] / 3  # distances that binary fractions cannot hold
    radius, _ = nearest(grid, grid, 1, same=True)
    reach = nearest(grid[1:], grid[:-1], 1)[0]  # 0: each is in the other set
    assert (reach[:-1] == 0).all()
    ends, _ = inside(grid[:1], grid[1:2], nearest(grid[:1], grid[1:2])[0][:, 0], closed=True)
    none, _ = inside(grid[:1], grid[1:2], nearest(grid[:1], grid[1:2])[0][:, 0], closed=False)
    assert (ends[0], none[0]) == (1, 0)
    assert (radius > 0).all()


def prdc(x: np.ndarray, y: np.ndarray) -> list[float]:
    return [metric(x, y).value for metric in (precision, recall, density, coverage)]


def test_identical_sets() -> None:
    x = cloud(200, 3)
    p, r, d, c = prdc(x, x)
    assert (p, r, c) == (1, 1, 1)
    assert d > 0.8  # one's own ball is among those around it


def test_disjoint_sets() -> None:
    assert prdc(cloud(200, 4), cloud(200, 5) + 100) == [0, 0, 0, 0]


def test_a_collapsed_generator_is_precise_and_recalls_nothing() -> None:
    real = cloud(300, 6)
    p, r, d, c = prdc(real.mean(0) + 1e-3 * cloud(300, 7), real)
    assert p == 1
    assert r < 0.05
    assert d > 1
    assert c < 0.2


def test_duplicates_have_radius_zero_and_still_count_in_closed_balls() -> None:
    points = np.repeat(cloud(20, 8), 10, axis=0)
    assert prdc(points, points) == [1, 1, 0, 0]  # an open ball of radius 0 is empty


def test_half_of_the_modes_missing_shows_in_recall_and_coverage() -> None:
    real = np.concatenate((cloud(200, 9), cloud(200, 10) + 50))
    p, r, _, c = prdc(cloud(400, 11), real)
    assert r <= 0.5
    assert c <= 0.5
    assert p > 0.7


def test_density_and_coverage_have_their_expectations() -> None:
    pairs = [(cloud(150, 2 * s + 100, d=3), cloud(120, 2 * s + 101, d=3)) for s in range(60)]
    expected = 1 - math.prod((119 - j) / (269 - j) for j in range(5))
    for metric, truth in ((density, 1.0), (coverage, expected)):
        values = np.array([metric(x, y).value for x, y in pairs])
        assert abs(values.mean() - truth) < 3 * values.std(ddof=1) / np.sqrt(60), metric


def test_too_few_images_for_k_are_refused() -> None:
    with pytest.raises(ValueError, match="5 neighbours need at least 6 images"):
        density(cloud(50, 0), cloud(5, 1))


def test_wilsons_interval_covers() -> None:
    rng = np.random.default_rng(12)
    intervals = [share(int(h), 60).interval for h in rng.binomial(60, 0.9, size=2000)]
    assert 0.93 < np.mean([low <= 0.9 <= high for low, high in intervals]) < 0.975


def test_a_copying_model_is_told_from_an_honest_one() -> None:
    train, held_out, honest = cloud(600, 13), cloud(300, 14), cloud(300, 15)
    good = memorization(honest, train, held_out)
    assert good.zero == 0
    assert good.closer.interval[0] < 0.01 < good.closer.interval[1]
    assert abs(good.authentic.value - good.authentic_held_out.value) < 0.12
    thief = train[:300] + 1e-4 * cloud(300, 16)
    thief[5] = train[41]
    bad = memorization(thief, train, held_out)
    assert bad.zero == 1
    assert bad.index[5] == 41
    assert bad.nearest_first(1).tolist() == [5]
    assert bad.closer.value == 1
    assert bad.authentic.value < 0.01
    np.testing.assert_array_equal(np.delete(bad.index, 5), np.delete(np.arange(300), 5))


def test_authenticity_of_independent_images_matches_held_out_ones_in_any_dimension() -> None:
    for d in (2, 40):
        found = memorization(cloud(800, 17, d), cloud(800, 18, d), cloud(800, 19, d))
        error = np.hypot(found.authentic.se, found.authentic_held_out.se)
        assert abs(found.authentic.value - found.authentic_held_out.value) < 4 * error


def test_the_two_sample_test_on_equal_different_and_copied_sets() -> None:
    equal = two_sample(cloud(400, 20), cloud(400, 21))
    assert equal.interval[0] - 0.02 < 0.5 < equal.interval[1] + 0.02
    assert two_sample(cloud(200, 22), cloud(200, 23) + 20).value == 1
    real = cloud(200, 24)
    assert two_sample(real + 1e-6 * cloud(200, 25), real).value == 0  # copies: the alarm
    with pytest.raises(ValueError, match="as many generated as real"):
        two_sample(real, real[:100])


def test_copies_are_found_by_hash() -> None:
    train = np.random.default_rng(26).integers(0, 256, size=(50, 32), dtype=np.uint8)
    train[9] = train[3]
    made = np.random.default_rng(27).integers(0, 256, size=(4, 32), dtype=np.uint8)
    made[2] = train[9]
    assert copies(made, train).tolist() == [-1, -1, 3, -1]
