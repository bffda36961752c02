"""Protocols, refusals, scores and floors."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from sfumato.metrics.calibration import draws, floor
from sfumato.metrics.extractors.pixels import pixels
from sfumato.metrics.frechet import expected_bias
from sfumato.metrics.jackknife import deal
from sfumato.metrics.metric import available, find_metric
from sfumato.metrics.protocol import NO_REFERENCE, EvalProtocol, IncomparableError, Reference, canonical, differences
from sfumato.metrics.rules import LeakageError, SelfComparisonError, check_leakage, check_self_comparison, flags
from sfumato.metrics.score import Score, compare, excess, measure, with_floor

PIXELS = pixels((1, 2, 3))
D = PIXELS.dimension


def reference(**changes: object) -> Reference:
    values = {"dataset": "toy", "content_hash": "ab", "split": "test", "rule": "drawn", "index_hash": "cd", "n": 0}
    return Reference(**{**values, **changes})  # type: ignore[arg-type]


def protocol(**changes: object) -> EvalProtocol:
    values = {
        "metric": "FD",
        "version": 1,
        "extractor": "pixels",
        "weights_hash": "none",
        "features": {"a": 1},
        "reference": reference(),
        "n": 10,
        "class_prior": "uniform",
        "estimator": "e",
    }
    return EvalProtocol(**{**values, **changes})  # type: ignore[arg-type]


def gaussian(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, size=(n, D))


def test_the_id_is_the_hash_of_the_canonical_identity() -> None:
    p = protocol()
    text = json.dumps(p.identity, sort_keys=True, separators=(",", ":"))
    assert p.protocol_id == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert canonical({"a": {"c": 1, "b": 2}}) == canonical({"a": {"b": 2, "c": 1}})


def test_every_identity_field_changes_the_id_and_provenance_does_not() -> None:
    base, ids = protocol(), set()
    assert protocol(provenance={"sampler": "heun"}).protocol_id == base.protocol_id
    for name in base.identity:
        old = getattr(base, name)
        new = {"features": {"a": 2}, "options": {"k": 3}, "reference": reference(split="train")}.get(
            name, old + 1 if isinstance(old, int) else old + "x" if isinstance(old, str) else None
        )
        ids.add(dataclasses.replace(base, **{name: new}).protocol_id)
    for inner in dataclasses.fields(Reference):
        old = getattr(base.reference, inner.name)
        new = (not old) if isinstance(old, bool) else old + 1 if isinstance(old, int) else old + "x"
        ids.add(protocol(reference=reference(**{inner.name: new})).protocol_id)
    assert base.protocol_id not in ids
    assert len(ids) == len(base.identity) + len(dataclasses.fields(Reference))


def test_protocols_survive_json_and_edits_are_seen() -> None:
    p = protocol(options={"k": 3}, provenance={"nfe": 35})
    stored = json.loads(json.dumps(p.to_json()))
    assert EvalProtocol.from_json(stored) == p
    with pytest.raises(ValueError, match="was edited"):
        EvalProtocol.from_json({**stored, "n": 50_000})
    with pytest.raises(ValueError, match="not a protocol"):
        EvalProtocol.from_json({**stored, "extra": 1})
    with pytest.raises(ValueError, match="without NaN"):
        protocol(options={"k": float("nan")})


def test_incomparable_scores_are_refused_with_their_fields() -> None:
    x, y = gaussian(100, 0), gaussian(120, 1)
    a = measure("fd", x, y, PIXELS, reference())
    b = measure("fd", x, y, PIXELS, reference(split="train"), quantisation="truncate", provenance={"seed": 1})
    with pytest.raises(IncomparableError) as caught:
        compare(a, b)
    assert caught.value.exit_code == 3
    assert [name for name, _, _ in caught.value.fields] == ["quantisation", "reference.split"]
    assert "'test' against 'train'" in str(caught.value)


def test_comparable_scores_are_ranked_only_when_apart() -> None:
    y = gaussian(400, 1)
    near, again = (measure("fd", gaussian(400, s), y, PIXELS, reference(), provenance={"seed": s}) for s in (2, 3))
    far = measure("fd", gaussian(400, 4, shift=2.0), y, PIXELS, reference())
    tie, rank = compare(near, again), compare(near, far)
    assert tie.verdict == "not distinguishable"
    assert tie.provenance == [("seed", 2, 3)]
    assert rank.verdict == "the first is better"
    assert rank.difference > 10
    assert rank.difference == far.value - near.value


@pytest.mark.parametrize("metric", ["fd", "kid"])
def test_scores_of_equal_seeds_are_compared_in_pairs(metric: str) -> None:
    y, noise = gaussian(300, 1), gaussian(300, 2)
    a, b = (
        measure(metric, noise + shift, y, PIXELS, reference(), provenance={"seeds": [0, 300]}) for shift in (0.10, 0.13)
    )
    paired = compare(a, b)
    assert paired.interval is not None
    assert paired.interval[0] < paired.difference < paired.interval[1]
    assert paired.distinguishable  # a small shift of the same images is seen ...
    other = dataclasses.replace(b, protocol=dataclasses.replace(b.protocol, provenance={"seeds": [300, 600]}))
    alone = compare(a, other)
    assert alone.interval is None
    assert alone.verdict == "not distinguishable"  # ... and drowns in the noise of separate samples


def test_the_paired_interval_covers_the_difference() -> None:
    hits = []
    for s in range(60):
        rng = np.random.default_rng(s)
        x, y = rng.normal(size=(200, D)), rng.normal(size=(200, D))
        a, b = (measure("kid", f * x, y, PIXELS, reference(), provenance={"seeds": [0, 200]}) for f in (1.0, 1.1))
        low, high = compare(a, b).interval or (0.0, 0.0)
        # E k for x ~ N(0, f^2 I), y ~ N(0, g^2 I) is 1 + 3 f^2 g^2 / d; KID = 3 (f^2 - 1)^2 / d against N(0, I)
        hits.append(low <= 3 * (1.1**2 - 1) ** 2 / D <= high)
    assert np.mean(hits) >= 0.86


@pytest.mark.parametrize(
    "metric", [name for name in available() if find_metric(name).view == "features" and name != "saturation"]
)
def test_a_score_survives_a_file(metric: str) -> None:
    if find_metric(metric).least > 100:
        pytest.skip("needs thousands of images; test_frechet has it")
    x, y = gaussian(100, 0), gaussian(120, 1)
    low = floor(metric, gaussian(500, 2), 100, PIXELS, reference(n=120), m=120)
    score = with_floor(measure(metric, x, y, PIXELS, reference(n=120), notes=("* seen",)), low)
    stored = json.loads(json.dumps([score.to_json(), low.to_json()]))
    assert [Score.from_json(values) for values in stored] == [score, low]
    older = [{key: value for key, value in values.items() if key != "better"} for values in stored]
    assert [Score.from_json(values).better for values in older] == [find_metric(metric).better] * 2
    assert score.name == f"{find_metric(metric).name}[pixels]"
    assert score.protocol.protocol_id in str(score)
    assert "* seen" in score.flags
    with pytest.raises(ValueError, match="same sizes"):
        with_floor(measure(metric, x[:90], y, PIXELS, reference()), low)


def test_measure_refuses_a_reference_of_another_size_and_unknown_metrics() -> None:
    with pytest.raises(ValueError, match="says it has 10000 images, but 50"):
        measure("fd", gaussian(50, 0), gaussian(50, 1), PIXELS, reference(n=10_000))
    with pytest.raises(ValueError, match="--metrics fd --extract inception"):
        measure("fid", gaussian(50, 0), gaussian(50, 1), PIXELS, reference())


def test_flags_name_their_reasons() -> None:
    def of(n: int, d: int, ref: Reference, covariance: bool = True) -> str:
        return " | ".join(flags(n, d, ref, by_covariance=covariance))

    good = reference(n=10_000)
    assert of(6000, 100, good) == ""
    assert "6000 < 10 d = 10000" in of(6000, 1000, good)
    assert of(6000, 1000, good, covariance=False) == ""
    assert "100 < 5000" in of(50_000, 1, reference(n=100))
    assert "unverified" in of(6000, 1, reference(content_hash="", n=6000))
    assert of(6000, 1, NO_REFERENCE) == ""  # a score that knows no real images


def hashes(start: int, stop: int) -> np.ndarray:
    return np.stack([np.frombuffer(hashlib.sha256(str(i).encode()).digest(), np.uint8) for i in range(start, stop)])


def test_training_images_may_not_hide_in_a_test_set() -> None:
    assert check_leakage(reference(), hashes(0, 100), hashes(100, 300)) == ()
    with pytest.raises(LeakageError, match="1 of the 100 images of the 'test' split"):
        check_leakage(reference(), hashes(0, 100), hashes(99, 300))
    (flag,) = check_leakage(reference(split="train"), hashes(0, 100), hashes(0, 300))
    assert flag == "* the model was trained on 100 of the reference images"


def test_a_set_is_not_compared_with_itself() -> None:
    assert check_self_comparison(hashes(0, 200), hashes(198, 400)) == 2
    with pytest.raises(SelfComparisonError, match="3 of 200"):
        check_self_comparison(hashes(0, 200), hashes(197, 400))


def test_draws_are_disjoint_while_the_pool_lasts() -> None:
    rows = np.concatenate(draws(100, 24, 4, 0))
    assert len(set(rows.tolist())) == 96
    member = deal(103, 20)
    for rows in draws(103, 50, 4, 0, member=member):
        assert np.ptp(np.bincount(member[rows], minlength=20)) <= 1
    many = draws(100, 60, 3, 0)
    assert all(len(set(part.tolist())) == 60 for part in many)
    assert not np.array_equal(many[0], many[1])
    assert np.array_equal(many[2], draws(100, 60, 3, 0)[2])


def test_the_floor_is_the_bias_in_plain_and_zero_when_corrected() -> None:
    real = gaussian(40_000, 5)
    low = floor("fd", real, 500, PIXELS, reference(), m=500, repeats=25)
    bias = expected_bias(np.ones(D), 500, 500)
    assert low.plain == pytest.approx(bias, rel=0.1)
    assert abs(low.value) < 0.1 * bias
    assert low.interval[0] < 0 < low.interval[1]
    assert low.protocol.provenance["disjoint"]


@pytest.mark.parametrize(("metric", "pool", "kinds"), [("fd", 280, 0), ("kid", 900, 0), ("fd", 280, 5)])
def test_the_interval_of_a_floor_holds_the_noise_of_its_reference(metric: str, pool: int, kinds: int) -> None:
    """Draws of one pool against one reference are related: their spread says little, the interval holds the truth, 0.

    With a model that makes real images, its excess over the floor holds 0 too.
    """
    n, m, held, above, spread, values = 200, 80, [], [], [], []
    for s in range(25):
        rng = np.random.default_rng(s)
        centres = 3 * np.random.default_rng(99).normal(size=(max(kinds, 1), D)) * (kinds > 0)
        labels = [rng.integers(0, max(kinds, 1), size) for size in (pool, m)]
        real, other = (centres[part] + rng.normal(size=(len(part), D)) for part in labels)
        classes = labels[0] if kinds else None
        low = floor(metric, real, n, PIXELS, reference(), reference_features=other, labels=classes, repeats=3)
        asked = np.arange(n) % max(kinds, 1)
        made = centres[asked] + rng.normal(size=(n, D))
        score = measure(metric, made, other, PIXELS, reference(), strata=(asked if kinds else None, None))
        found = excess(with_floor(score, low))
        assert found is not None
        held.append(low.interval[0] <= 0 <= low.interval[1])
        above.append(found.interval[0] <= 0 <= found.interval[1])
        values.append(low.value)
        spread.append(low.se)
    assert np.mean(held) >= 0.88
    assert np.mean(above) >= 0.88
    assert abs(np.mean(values)) < 3 * np.std(values) / 5
    assert np.std(values) < 1.3 * np.mean(spread)  # the interval is no narrower than the floor's own scatter


def test_excess_sets_a_score_beside_its_floor() -> None:
    real, other = gaussian(2000, 6), gaussian(200, 7)
    low = floor("fd", real, 300, PIXELS, reference(), reference_features=other)
    score = with_floor(measure("fd", gaussian(300, 8, shift=0.3), other, PIXELS, reference()), low)
    found = excess(score)
    assert found is not None
    assert found.value == pytest.approx(score.value - low.value, rel=1e-9)
    assert found.interval[0] > 0  # a shifted model is seen
    assert found.se < np.hypot(score.se, low.se)  # the noise of the reference they share is gone
    assert excess(measure("fd", real[:300], other, PIXELS, reference())) is None


def test_the_floor_of_a_score_without_a_jackknife_is_a_range() -> None:
    """Overlapping draws vary too little; the range is widened, and holds a fresh set as often as it says."""
    real, held_out = gaussian(400, 6), gaussian(200, 7)
    low = floor("coverage", real, 300, PIXELS, reference(), reference_features=held_out)
    inside = [
        low.interval[0]
        <= measure("coverage", gaussian(300, 100 + s), held_out, PIXELS, reference()).value
        <= low.interval[1]
        for s in range(40)
    ]
    assert np.mean(inside) >= 0.85


def test_a_floor_needs_enough_images_and_one_kind_of_reference() -> None:
    real = gaussian(100, 8)
    with pytest.raises(ValueError, match="needs 120 real images, got 100"):
        floor("fd", real, 60, PIXELS, reference(), m=60)
    with pytest.raises(ValueError, match="either m"):
        floor("fd", real, 60, PIXELS, reference())
    with pytest.raises(ValueError, match="at least 2 repeats"):
        floor("fd", real, 40, PIXELS, reference(), m=40, repeats=1)


def test_scores_are_values() -> None:
    score = measure("kid", gaussian(50, 0), gaussian(50, 1), PIXELS, reference())
    with pytest.raises(dataclasses.FrozenInstanceError):
        score.value = 0.0  # type: ignore[misc]
    assert differences(score.to_json(), Score.from_json(score.to_json()).to_json()) == []


def test_class_predictions_make_a_score_without_a_reference() -> None:
    logits = np.random.default_rng(9).normal(size=(300, 7)) * 3
    a, b = (measure("is", rows, None, PIXELS, reference()) for rows in (logits, np.zeros((300, 7))))
    assert (a.name, a.m, a.flags) == ("IS[pixels]", 0, ("few images: n = 300 < 5000",))
    assert Score.from_json(json.loads(json.dumps(a.to_json()))) == a
    assert b.value == pytest.approx(1)
    assert compare(a, b).verdict == "the first is better"
    with pytest.raises(IncomparableError):
        compare(
            a, measure(dataclasses.replace(find_metric("is"), options={"splits": 5}), logits, None, PIXELS, reference())
        )


def test_floors_of_balanced_classes_are_drawn_balanced() -> None:
    labels = np.repeat(np.arange(4), (50, 60, 70, 80))
    for rows in draws(260, 42, 3, 0, labels):
        assert sorted(np.bincount(labels[rows]).tolist()) == [10, 10, 11, 11]
        assert len(set(rows.tolist())) == 42
    member = deal(260, 20, labels)
    for rows in draws(260, 42, 6, 0, labels, member):
        assert sorted(np.bincount(labels[rows]).tolist()) == [10, 10, 11, 11]
        assert np.ptp(np.bincount(member[rows], minlength=20)) <= 2
    with pytest.raises(ValueError, match="needs 60 images of class 0, the pool has 50"):
        draws(260, 240, 2, 0, labels)
    centres = 4 * np.random.default_rng(1).normal(size=(4, D))
    real, other = gaussian(2000, 20) + centres[np.arange(2000) % 4], gaussian(400, 21) + centres[np.arange(400) % 4]
    kinds, sides = np.arange(2000) % 4, {"reference_features": other, "reference_labels": np.arange(400) % 4}
    low = floor("fd", real, 200, PIXELS, reference(), labels=kinds, **sides)  # type: ignore[arg-type]
    assert low.interval[0] < 0 < low.interval[1]
    assert low.protocol.options["strata"] == [True, True]
    score = measure("fd", real[:200], other, PIXELS, reference(), strata=(kinds[:200], kinds[:400]))
    assert score.protocol.options["strata"] == [True, True]
    assert "strata" not in measure("recall", real[:200], other, PIXELS, reference()).protocol.options
    with pytest.raises(ValueError, match="give reference_features, not m"):
        floor("fd", real, 200, PIXELS, reference(), m=200, labels=kinds)
