"""From a run to a score: what is recorded, what is flagged, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sfumato.core.denoiser import Prediction
from sfumato.core.images import NonFiniteError, to_float
from sfumato.data import load
from sfumato.evaluation import balanced, cached_features, evaluate, judge
from sfumato.metrics.features import extractor, features_of
from sfumato.metrics.rules import LeakageError, SelfComparisonError
from sfumato.runs.override import override
from sfumato.runs.run import Run
from sfumato.sources import in_turn
from sfumato.training.loop import train


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    return train(tiny, tmp_path_factory.mktemp("evaluated") / "run", quiet=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def pixels(run, **options):
    return evaluate(run, n=120, extract="pixels", quiet=True, device="cpu", **options)


def test_a_score_carries_floor_protocol_and_provenance(run):
    result = pixels(run)
    fd, kid = result.scores
    assert (fd.name, kid.name) == ("FD[pixels]", "KID[pixels]")
    assert fd.n == 120 and fd.m == len(load("digits", split="test"))
    assert fd.floor is not None and fd.floor.value < fd.value
    assert fd.interval[0] < fd.value < fd.interval[1]
    assert any("too few" in flag for flag in fd.flags)
    assert fd.protocol.reference.split == "test" and fd.protocol.class_prior == "uniform"
    facts = fd.protocol.provenance
    assert facts["nfe"] == 5 and facts["images_seen"] == 320 and facts["seeds"] == [0, 120]
    assert json.loads(result.path.read_text())["scores"][0]["value"] == fd.value


def test_jackknife_groups_are_dealt_within_chosen_classes(run):
    """Labels asked for in equal numbers are no noise; digits' test classes are uneven, so its side is dealt blindly."""
    fd = pixels(run).scores[0]
    assert fd.protocol.options["strata"] == fd.floor.protocol.options["strata"] == [True, False]
    even, uneven = load("digits", split="test"), load("digits", split="test")
    rows = torch.cat([(even.labels == k).nonzero()[:20, 0] for k in range(10)])
    assert balanced(even.subset(rows.tolist())) and not balanced(uneven)


def test_an_image_is_judged_by_its_seed_wherever_the_seeds_begin(run):
    """Seed k is of class k mod 10 whatever is asked beside it, so the images scored are those that `sample` makes."""
    assert run.labels(20, first=7)[0].tolist() == [(7 + i) % 10 for i in range(20)]
    (score,) = pixels(run, metrics=("saturation",), first_seed=7).scores
    made = run.source(device="cpu")(range(7, 127), in_turn(range(7, 127), range(10)))
    assert score.value == pytest.approx(float(((made == 0) | (made == 255)).float().mean()), rel=1e-5)


def test_the_same_seeds_give_the_same_score_in_any_batch(run):
    """Images differ by at most one level between batch sizes, so scores agree to the last percent."""
    smaller = run.with_recipe(override(run.recipe, ["sample.batch=7"]))
    assert pixels(run).scores[0].value == pixels(run).scores[0].value
    assert pixels(smaller).scores[0].value == pytest.approx(pixels(run).scores[0].value, rel=1e-2)


def test_guidance_counts_both_branches(run):
    """Classifier-free guidance asks the network twice a call, and the score says so."""
    guided = run.with_recipe(override(run.recipe, ["sample.guidance=2"]))
    assert pixels(guided).provenance["nfe"] == 2 * pixels(run).provenance["nfe"]


def test_training_images_as_held_out_reference_are_refused(run, monkeypatch):
    """A run that saw the test images may not be scored on them as a test."""
    both = load("digits", split="all")
    monkeypatch.setattr(judge, "training_data", lambda recipe, root=None: both)
    with pytest.raises(LeakageError, match="were in the training set"):
        pixels(run)


def test_scores_on_training_images_carry_the_asterisk(run):
    scores = pixels(run, split="train").scores
    assert all(any(flag.startswith("*") for flag in score.flags) for score in scores)


def test_copies_of_the_reference_are_refused(run, monkeypatch):
    """A model that returns test images is a comparison of a set with itself."""
    real = to_float(load("digits", split="test").images)

    class Copyist:
        def __call__(self, x, level, label=None):
            return Prediction(real[: len(x)].to(x))

    monkeypatch.setattr(Run, "denoiser", lambda self, use=None, device="cpu": Copyist())
    with pytest.raises(SelfComparisonError, match="compares a set with itself"):
        pixels(run)


def test_non_finite_images_are_refused(run, monkeypatch):
    """P19: NaN never becomes a pixel, and no score is written."""

    class Broken:
        def __call__(self, x, level, label=None):
            return Prediction(torch.full_like(x, float("nan")))

    monkeypatch.setattr(Run, "denoiser", lambda self, use=None, device="cpu": Broken())
    before = sorted((run.path / "results").glob("*")) if (run.path / "results").exists() else []
    with pytest.raises(NonFiniteError, match="hold NaN or infinity"):
        pixels(run)
    assert before == (sorted((run.path / "results").glob("*")) if (run.path / "results").exists() else [])


@pytest.mark.parametrize("n", [1, 30])
def test_too_few_images_is_an_error_with_the_rule(run, n):
    with pytest.raises(ValueError, match="at least 40|2 G|fewer|at least"):
        evaluate(run, n=n, extract="pixels", quiet=True, device="cpu")


def test_cached_features_follow_the_pixels(tmp_path):
    """One changed pixel misses the cache; a damaged cache file is made anew."""
    data = load("digits", split="test", first=50)
    extract = extractor("pixels", data.shape)
    fresh = features_of(extract, data.images)
    assert np.array_equal(cached_features(extract, data), fresh)
    (file,) = (tmp_path / "sfumato" / "features").glob("*.npy")
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(cached_features(extract, data), fresh)
    changed = load("digits", split="test", first=50)
    changed.images[0, 0, 0, 0] ^= 1
    other = type(data)(**{f: getattr(changed, f) for f in data.__dataclass_fields__})
    assert not np.array_equal(cached_features(extract, other), fresh)
