"""What rows are judged by: one class, the estimate of x0 on the way, real images; and what counts as diverged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sfumato.core.images import to_uint8
from sfumato.experiments.judges import Copying, Estimates, OneClass, RealImages, Restoration
from sfumato.experiments.study import Asked, Row, Study, find_study
from sfumato.experiments.work import Workspace, outcome_of, result_key, worse_than_at_first
from sfumato.runs.override import override
from sfumato.runs.resolve import load_data
from sfumato.runs.run import Run
from sfumato.studies._bases import edm


@pytest.fixture(scope="module")
def recipe():
    sizes = ["train.images=32", "train.batch=16", "sample.grid.steps=4", "data.first=64"]
    return override(edm("tiny"), [*sizes, "data.test=0.5"])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judges")
    return Workspace(folder, folder / "runs", device="cpu", quiet=True)


def study_of(*rows, **fields):
    return Study("mine", "tiny", "?", "-", "-", "", rows, **{"metrics": ("kid",), "n": 40, **fields})


def test_real_images_score_about_nothing_without_a_run(recipe, place):
    row = Row("real", recipe, judge=RealImages(100, 4), untrained=True)
    study = study_of(row)
    outcome = outcome_of(study, row, 0, place)
    low, high = outcome.scores["kid"].interval
    assert study.runs == {} and outcome.run is None and outcome.scores["kid"].n == 100
    assert high - low < 0.1 and abs(outcome.scores["kid"].value) < 0.05


def test_one_class_is_judged_against_its_own_images(recipe, place):
    row = Row("threes", recipe, run="r", judge=OneClass("3"))
    outcome = outcome_of(study_of(row), row, 0, place)
    score = outcome.scores["kid"]
    threes = int((load_data(recipe, "test").labels == 3).sum())
    assert score.m == threes and score.n == 40 and score.protocol.class_prior == "class 3"
    assert score.floor is not None and outcome.facts["nfe"] == 7
    assert score.floor.protocol.options["strata"] == score.protocol.options["strata"]


def test_what_lies_near_the_training_images_stands_beside_the_score(recipe, place):
    """Noise, which these images nearly are, copies nothing."""
    row = Row("copying", recipe, run="r", judge=Copying())
    outcome = outcome_of(study_of(row, Row("whole", recipe, run="r")), row, 0, place)
    whole = outcome_of(study_of(row), Row("whole", recipe, run="r"), 0, place)
    assert outcome.scores["kid"].value == whole.scores["kid"].value
    figures = outcome.facts["figures"]
    assert figures["near copies (1% by chance)"][0] == 0 and figures["AuthPct"][0] > figures["AuthPct, held out"][2]


@pytest.mark.parametrize("judge", [OneClass("3"), None])
def test_a_metric_that_cannot_be_computed_costs_a_row_no_other(recipe, place, judge):
    row = Row(f"refused {judge}", recipe, run="r", judge=judge)
    outcome = outcome_of(study_of(row, metrics=("fd-infinity", "kid")), row, 0, place)
    assert set(outcome.scores) == {"kid"} and outcome.scores["kid"].name.startswith("KID")
    assert "at least 5001" in outcome.facts["refused"]["fd-infinity"]


def test_the_last_estimate_is_the_image(recipe, place):
    """With a sampler that ends in its estimate, the estimate after the last step is what the run makes."""
    ddim = override(recipe, ["sample.sampler=ddim"])
    rows = [Row(f"after {k}", ddim, run="r-ddim", judge=Estimates(k)) for k in (1, 4)]
    study = study_of(*rows, Row("whole", ddim, run="r-ddim"))
    early, last = (outcome_of(study, row, 0, place) for row in rows)
    whole = outcome_of(study, study.rows[2], 0, place)
    assert last.scores["kid"].value == pytest.approx(whole.scores["kid"].value, abs=1e-6)
    assert early.scores["kid"].value != last.scores["kid"].value
    assert early.facts["nfe"] == 1 and early.facts["nsr"] > last.facts["nsr"]


def test_another_judge_is_another_result(recipe, place):
    rows = [Row(f"n {n}", recipe, judge=RealImages(n), untrained=True) for n in (50, 100)]
    asked = Asked(study_of(*rows), recipe, None, None, "cpu", True)
    assert len({result_key(row, asked) for row in rows}) == 2
    assert result_key(rows[0], asked) == result_key(rows[0], asked)


@pytest.mark.parametrize(
    ("losses", "diverged"), [([1.0, 0.5, 0.4], False), ([1.0, 1.2, 1.4], False), ([1.0, 9.0], True), ([1.0], False)]
)
def test_a_loss_that_ends_above_its_start_has_diverged(tmp_path: Path, losses, diverged):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"images": 64, "loss": v}) + "\n" for v in losses))
    assert bool(worse_than_at_first(tmp_path)) is diverged


def test_a_guided_row_is_sampled_with_its_classifier(place):
    """The classifier is trained beside the run, named in the row's recipe, and changes the images."""
    from sfumato.experiments.study import find_study

    study = find_study("classifier-guidance", "tiny")
    short = ["train.images=64"]
    guide = override(study.guides["classifier"], short)
    rows = [
        Row(
            f"s {s}",
            override(study.rows[0].recipe, short),
            (f"sample.classifier_scale={s}",),
            run="model",
            guide="classifier",
        )
        for s in (0.0, 50.0)
    ]
    small = study_of(*rows, guides={"classifier": guide})
    weak, strong = (outcome_of(small, row, 0, place) for row in rows)
    assert Path(strong.run.recipe.sample.classifier).name == "classifier-seed0"
    label = torch.tensor([3, 3])
    assert not torch.equal(weak.run.source()([0, 1], label), strong.run.source()([0, 1], label))


def test_a_class_is_known_by_its_number_and_number_0_is_a_class() -> None:
    labelled, unlabelled = SimpleNamespace(classes=("cat", "frog")), SimpleNamespace(classes=())
    assert [OneClass(name).label(labelled) for name in labelled.classes] == [0, 1]
    assert OneClass("cat").label(unlabelled) is None and OneClass("cat", asked=False).label(labelled) is None


def test_restored_pictures_are_judged_as_a_set_and_one_by_one() -> None:
    """The seen half is the original's, and the samples' band holds as much as three samples can: a half is right."""
    saved = Run.open(Path(__file__).parents[1] / "runs" / "saved" / "run")
    run = saved.with_recipe(override(saved.recipe, ["sample.guidance=1", "sample.interval=none"]))
    study = replace(find_study("restoration", "tiny"), n=40)
    asked = Asked(study, run.recipe, run, None, "cpu", True)
    judge = Restoration("inpaint", "ddnm", 3, (("mask", "half"),))
    truth, y, task, found = judge.restored(asked)
    seen = ~task.open()
    assert torch.equal(to_uint8(found.samples[:, 0])[:, seen], truth[:, seen])
    scores, facts = judge(asked)
    assert scores["fd"].n == 40 and scores["fd"].floor is not None and scores["fd"].value > scores["fd"].floor.value
    inside = facts["figures"]["coverage (0.50 is right)"][0]
    assert 0 < inside < 1 and facts["figures"]["PSNR, mean"][0] > facts["figures"]["PSNR, a sample"][0]
