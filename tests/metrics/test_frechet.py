"""The Frechet distance, its bias, its interval and its memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from sfumato.metrics.calibration import floor
from sfumato.metrics.features import extractor
from sfumato.metrics.frechet import expected_bias, frechet, frechet_distance, frechet_infinity, frechet_plain, held
from sfumato.metrics.jackknife import Estimate, deal, even, group_of, jackknife, weights
from sfumato.metrics.kid import kid
from sfumato.metrics.metric import Metric, find_metric
from sfumato.metrics.protocol import Reference
from sfumato.metrics.score import Score
from sfumato.metrics.statistics import Groups, Moments


def rotation(d: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def test_commuting_gaussians_have_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    q, mu = rotation(12, rng), rng.normal(size=12)
    a, b = rng.uniform(0.1, 3, 12), rng.uniform(0.1, 3, 12)
    truth = mu @ mu + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert frechet_distance(mu, (q * a) @ q.T, np.zeros(12), (q * b) @ q.T) == pytest.approx(truth, rel=1e-12)


def test_gaussians_in_the_plane_have_the_closed_form_for_any_angle() -> None:
    """In two dimensions tr (A B)^(1/2) = sqrt(tr AB + 2 sqrt(det A det B)), commuting or not."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        m, k = rng.normal(size=(2, 2)), rng.normal(size=(2, 2))
        a, b = m @ m.T, k @ k.T
        root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a) * np.linalg.det(b)))
        truth = np.trace(a) + np.trace(b) - 2 * root
        assert frechet_distance(np.zeros(2), a, np.zeros(2), b) == pytest.approx(truth, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("d", [256, pytest.param(2048, marks=pytest.mark.slow)])
def test_a_unit_shift_of_unit_gaussians_measures_the_dimension(d: int) -> None:
    assert frechet_distance(np.zeros(d), np.eye(d), np.ones(d), np.eye(d)) == pytest.approx(d, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(60, 70), (9, 12), (9, 200)])
def test_symmetry_rotation_shift_and_scale(n: int, m: int) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(n, 16)), 1.5 * rng.normal(size=(m, 16)) + 0.3
    plain, q, shift = frechet_plain(x, y), rotation(16, rng), rng.normal(size=16)
    assert frechet_plain(y, x) == pytest.approx(plain, rel=1e-9)
    assert frechet_plain(x @ q + shift, y @ q + shift) == pytest.approx(plain, rel=1e-9)
    assert frechet_plain(3 * x, 3 * y) == pytest.approx(9 * plain, rel=1e-9)
    assert frechet_plain(x, x) == pytest.approx(0, abs=1e-6 * np.trace(np.cov(x.T)))


def test_the_two_forms_agree_where_both_hold() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(40, 39)), rng.normal(size=(45, 39)) @ rotation(39, rng)
    a, b = Moments.of(x), Moments.of(y)
    eigen = frechet_distance(a.mean, a.cov, b.mean, b.cov)
    assert frechet_plain(np.pad(x, ((0, 0), (0, 1))), np.pad(y, ((0, 0), (0, 1)))) == pytest.approx(eigen, rel=1e-9)


def test_bias_formula_within_three_standard_errors() -> None:
    rng = np.random.default_rng(4)
    scales = np.linspace(0.3, 2, 8)
    plain = [frechet_plain(scales * rng.normal(size=(400, 8)), scales * rng.normal(size=(600, 8))) for _ in range(300)]
    error = np.std(plain, ddof=1) / np.sqrt(len(plain))
    assert abs(np.mean(plain) - expected_bias(scales**2, 400, 600)) < 3 * error + 0.01 * np.mean(plain)


def coverage(runs: int, n: int, m: int, d: int, seed: int) -> tuple[float, float, float, float]:
    """Return the share of intervals that hold the truth, the mean errors of value and plain, and the first's error."""
    rng = np.random.default_rng(seed)
    shift, stretch = np.full(d, 0.2), 1.3
    truth = float(shift @ shift + d * (stretch - 1) ** 2)
    found = [frechet(stretch * rng.normal(size=(n, d)) + shift, rng.normal(size=(m, d))) for _ in range(runs)]
    hit = np.mean([e.interval[0] <= truth <= e.interval[1] for e in found])
    values = np.array([e.value for e in found])
    return (
        float(hit),
        float(values.mean() - truth),
        float(np.mean([e.plain for e in found]) - truth),
        float(values.std(ddof=1) / np.sqrt(runs)),
    )


def test_the_jackknife_removes_the_bias_and_its_interval_covers() -> None:
    hit, error, plain_error, se = coverage(runs=120, n=300, m=400, d=6, seed=5)
    assert plain_error > 6 * se  # the plain value is visibly biased at this size ...
    assert abs(error) < 3 * se  # ... and the corrected one is not
    assert 0.89 <= hit < 1  # 120 runs: 0.95 +- 3 standard errors


@pytest.mark.slow
def test_coverage_of_the_interval_in_many_runs() -> None:
    hit, error, _, se = coverage(runs=2000, n=400, m=500, d=16, seed=6)
    assert abs(error) < 3 * se
    assert 0.93 <= hit <= 0.97


def test_streams_equal_arrays_for_any_batch_size() -> None:
    rng = np.random.default_rng(7)
    x, y = (rng.normal(size=(n, 10)).astype(np.float32) + 1e3 for n in (230, 310))
    whole = frechet(x, y)
    for batch in (1, 7, 64):
        stream = Groups()
        for start in range(0, len(x), batch):
            stream.add(x[start : start + batch])
        estimate = frechet(stream, y)
        assert estimate.value == pytest.approx(whole.value, rel=1e-7)
        assert estimate.interval == pytest.approx(whole.interval, rel=1e-7)
        assert estimate.plain == pytest.approx(whole.plain, rel=1e-7)


def test_moments_do_not_cancel_far_from_the_origin() -> None:
    rng = np.random.default_rng(8)
    small = rng.integers(-8, 8, size=(500, 5)).astype(np.float64) / 16
    parts = Moments.of(small[:200] + 2**30) + Moments.of(small[200:] + 2**30)
    np.testing.assert_allclose(parts.cov, np.cov(small.T), rtol=1e-12, atol=1e-13)
    less = parts - Moments.of(small[200:] + 2**30)
    np.testing.assert_allclose(less.cov, np.cov(small[:200].T), rtol=1e-9, atol=1e-11)


def test_few_images_use_singular_values_in_the_jackknife_too() -> None:
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(60, 100)), rng.normal(size=(80, 100))
    estimate, member, other = frechet(x, y), group_of(0, 60), group_of(0, 80)
    left_out = [frechet_plain(x[member != k], y[other != k]) for k in range(20)]
    assert estimate.value == pytest.approx(jackknife(frechet_plain(x, y), np.array(left_out)).value, rel=1e-9)
    with pytest.raises(ValueError, match="Pass the features themselves"):
        frechet(Groups.of(x), y)


def test_groups_are_even_and_mix_cyclic_classes() -> None:
    member = group_of(0, 2000)
    assert (np.bincount(member) == 100).all()
    table = np.zeros((20, 10), int)
    np.add.at(table, (member, np.arange(2000) % 10), 1)
    assert table.max() < 25 and table.min() > 1  # position modulo 20 alone would give 100 and 0
    assert (group_of(333, 777) == member[333:777]).all()


def test_infinity_extrapolates_the_generated_side() -> None:
    rng = np.random.default_rng(10)
    d, n, m = 48, 9000, 7000
    x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    estimate = frechet_infinity(x, y)
    rest = expected_bias(np.ones(d), n, m) * n / (n + m)  # the reference's own part, c/m, stays
    assert abs(estimate.value - rest) < 0.01 < estimate.plain - estimate.value
    with pytest.raises(ValueError, match="5000"):
        frechet_infinity(x[:5000], y)


@pytest.mark.parametrize(
    ("x", "y", "error", "words"),
    [
        (np.zeros((50, 3)), np.zeros((50, 4)), ValueError, "3 columns"),
        (np.zeros((1, 3)), np.zeros((50, 3)), ValueError, "at least 2 images"),
        (np.zeros((30, 3)), np.zeros((50, 3)), ValueError, "at least 40 images"),
        (np.full((50, 3), np.nan), np.zeros((50, 3)), ValueError, "50 of 50 rows"),
        (np.zeros((50, 3), np.uint8), np.zeros((50, 3)), TypeError, "float32 or float64"),
        (np.zeros(50), np.zeros((50, 3)), ValueError, r"shape \(n, d\)"),
    ],
)
def test_bad_features_are_refused(x: np.ndarray, y: np.ndarray, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        frechet(x, y)


def test_strata_spread_every_class_and_keep_the_sizes() -> None:
    labels = np.random.default_rng(11).integers(0, 7, size=1003)
    member = deal(1003, 20, labels)
    assert np.ptp(np.bincount(member)) <= 1
    for kind in range(7):
        assert np.ptp(np.bincount(member[labels == kind], minlength=20)) <= 2
    assert (deal(1003) == group_of(0, 1003)).all()
    with pytest.raises(ValueError, match="one label for each of the 5 images, got 4"):
        deal(5, 2, np.zeros(4))


@pytest.mark.parametrize("metric", [frechet, kid])
def test_balanced_classes_need_strata(metric: Callable[..., Estimate]) -> None:
    """Two balanced samples of one mixture: with strata the value is 0 in the mean and the interval covers it."""
    rng, n, runs = np.random.default_rng(12), 400, 30
    centres, kinds = 3 * rng.normal(size=(5, 4)), (np.arange(n) % 5, rng.permutation(n) % 5)
    pairs = [[centres[labels] + rng.normal(size=(n, 4)) for labels in kinds] for _ in range(runs)]
    found, blind = [metric(x, y, kinds) for x, y in pairs], [metric(x, y) for x, y in pairs]
    values = np.array([e.value for e in found])
    error = values.std(ddof=1) / np.sqrt(runs)
    assert abs(values.mean()) < 3 * error
    assert np.mean([e.interval[0] <= 0 <= e.interval[1] for e in found]) >= 0.85
    assert np.mean([e.value for e in blind]) < -8 * error  # chosen classes taken for random ones


@pytest.mark.parametrize("metric", [frechet, kid])
def test_classes_that_do_not_divide_into_the_groups_keep_their_shares(metric: Callable[..., Estimate]) -> None:
    """33 images a class and 20 groups: what stays is weighted, else the class noise comes back."""
    rng, n, runs = np.random.default_rng(14), 165, 40
    centres, kinds = 3 * rng.normal(size=(5, 4)), np.arange(n) % 5
    found = [metric(*(centres[kinds] + rng.normal(size=(n, 4)) for _ in "xy"), (kinds, kinds)) for _ in range(runs)]
    values = np.array([e.value for e in found])
    assert abs(values.mean()) < 3 * values.std(ddof=1) / np.sqrt(runs)
    assert np.mean([e.interval[0] <= 0 <= e.interval[1] for e in found]) >= 0.9
    assert np.mean([e.se for e in found]) < 2 * values.std(ddof=1)


@pytest.mark.parametrize("d", [4, 300])
def test_weights_equal_dropping_rows_where_classes_are_even(d: int) -> None:
    """Classes of 40 divide into 20 groups: weighted sums, sums of groups and singular values agree."""
    rng, kinds = np.random.default_rng(15), np.arange(200) % 5
    x, y, member = rng.normal(size=(200, d)), rng.normal(size=(200, d)), deal(200, 20, kinds)
    assert even(member, kinds) and not even(deal(200, 20, np.arange(200) % 3), np.arange(200) % 3)
    for k in (0, 7):
        w = weights(member, kinds, k)
        assert set(np.round(w, 12).tolist()) == {0.0, 1.0}
        kept = Moments.weighted(x, w, x.mean(0))
        np.testing.assert_allclose(kept.cov, np.cov(x[member != k].T), rtol=1e-9, atol=1e-12)
    uneven = np.repeat(np.arange(3), (101, 66, 33))
    w = weights(deal(200, 20, uneven), uneven, 3)
    share = np.bincount(uneven, w) / w.sum()
    np.testing.assert_allclose(share, np.bincount(uneven) / 200, rtol=1e-12)
    estimate = frechet(x, y, (uneven, None))  # both forms of the distance take weights
    assert estimate.interval[0] < estimate.value < estimate.plain
    with pytest.raises(ValueError, match="at least 2 images of each class"):
        frechet(x, y, (np.arange(200), None))


def test_strata_need_two_images_of_each_class() -> None:
    x, labels = np.random.default_rng(13).normal(size=(100, 3)), np.arange(100) // 2
    with pytest.raises(ValueError, match="at least 2 images of each class"):
        kid(x, x + 1, (labels, None))


@pytest.mark.parametrize("n", [60, 400], ids=["fewer than d", "more than d"])
@pytest.mark.parametrize("labels", [None, np.arange(600) % 3, np.arange(600) % 7], ids=["none", "even", "uneven"])
def test_a_held_reference_gives_the_same_number_to_the_last_bit(n: int, labels: np.ndarray | None) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(n, 64)), rng.normal(1, 2, size=(600, 64)).astype(np.float32)
    kept = held(y, labels, n)
    assert isinstance(kept, Groups) == (n > 64 and (labels is None or labels.max() == 2))
    assert frechet(x, kept, (None, labels)) == frechet(x, y, (None, labels))


def test_a_floor_reads_its_reference_once_and_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, read = np.random.default_rng(4), []
    pool, y = rng.normal(size=(900, 8)), rng.normal(size=(500, 8))
    of = Groups.of
    monkeypatch.setattr(Groups, "of", lambda features, *rest: read.append(len(features)) or of(features, *rest))
    judge = extractor("pixels", (2, 2, 2))
    where = Reference("noise", "hash", "test", "", "", 500)

    def found(metric: Metric) -> Score:
        return floor(metric, pool, 200, judge, where, reference_features=y, repeats=4)

    fd = find_metric("fd")
    once = found(fd)
    assert sorted(read) == [200] * 4 + [500]
    assert found(replace(fd, hold=lambda y, labels, n: y)) == once and sorted(read)[-5:] == [500] * 5
