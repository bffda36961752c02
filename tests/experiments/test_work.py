"""Costs counted by hand, a study carried out, and one that finds its work done; tiny studies whole (slow)."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sfumato.cli import main
from sfumato.core.images import NonFiniteError
from sfumato.data.dataset import Dataset
from sfumato.evaluation import judge
from sfumato.experiments import judges, pages, work
from sfumato.experiments.cost import Estimate, estimate
from sfumato.experiments.study import Ordering, Outcome, Row, Study, find_study, studies
from sfumato.experiments.work import Workspace, carry_out, outcome_of
from sfumato.runs.guided import sampling_cost
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe, Shape
from sfumato.runs.run import Run
from sfumato.studies.samplers import longest
from sfumato.training.guard import Diverged


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """Two steps of a small network."""
    from sfumato.studies._bases import edm

    return override(edm("tiny"), ["train.images=32", "train.batch=16", "sample.grid.steps=3", "data.first=64"])


@pytest.fixture(scope="module")
def study(recipe: Recipe) -> Study:
    rows = (
        Row("two", recipe, ("sample.grid.steps=2",), run="r", x=2, line="heun"),
        Row("three", recipe, run="r", x=3, line="heun"),
    )
    return Study(
        "mine",
        "tiny",
        "How many steps?",
        "steps",
        "all else",
        "steps",
        rows,
        ("kid",),
        40,
        orderings=(Ordering("fewer are worse", ("three", "two"), "kid"),),
    )


@pytest.fixture(scope="module")
def done(study: Study, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("study")
    return SimpleNamespace(folder=folder, outcomes=carry_out(study, folder, device="cpu", quiet=True))


def resolved(recipe: Recipe, *settings: str) -> Recipe:
    known = replace(recipe, shape=Shape(1, 8, 8, tuple("0123456789")), sigma_data=0.5)
    return override(known, settings)


def calls(recipe: Recipe) -> int:
    return sampling_cost(plan(recipe))[1]


def test_calls_are_counted_as_the_network_is_asked(recipe: Recipe) -> None:
    for steps in (2, 3, 7):
        grid = f"sample.grid.steps={steps}"
        assert calls(resolved(recipe, "sample.sampler=heun", grid)) == 2 * steps - 1
        assert calls(resolved(recipe, "sample.sampler=ddim", grid)) == steps
        assert calls(resolved(recipe, "sample.sampler=ddim", grid, "sample.guidance=2")) == 2 * steps


@pytest.mark.parametrize(("sampler", "steps"), [("ddim", 9), ("heun", 5), ("dpmpp", 9)])
def test_the_longest_grid_within_a_budget(recipe: Recipe, sampler: str, steps: int) -> None:
    chosen = longest(recipe, (f"sample.sampler={sampler}",), 9)
    assert f"sample.grid.steps={steps}" in chosen
    assert calls(resolved(recipe, *chosen)) <= 9


def test_the_cost_of_a_study_by_hand(study: Study) -> None:
    found = estimate(study.resized(seeds=(0, 1)))
    assert (found.runs, found.trained, found.judged, found.sampled) == (2, 2 * 32, 4, 4 * 40)
    assert found.nfe == {"two": 3, "three": 5} and found.calls == 2 * 40 * (3 + 5)
    per_image = found.gflop / (3 * found.trained + found.calls)  # one network, one size: FLOP per image and call
    assert found.gflop == pytest.approx(per_image * (3 * 64 + 640)) and per_image > 1e-4
    assert found.speed > 0 and "64 training images" in str(found) and "640 network calls" in str(found)
    assert found.trained_gflop == pytest.approx(per_image * 3 * 64)
    joined = estimate(study.resized(seeds=(0,))).of_seeds(2, before=1)
    assert replace(joined, speed=found.speed, training_speed=found.training_speed) == found
    seconds = found.trained_gflop / found.training_speed + (found.gflop - found.trained_gflop) / found.speed
    assert found.minutes == pytest.approx(seconds / 60) and found.training_speed != found.speed


def test_a_row_that_cannot_be_sampled_is_refused_before_anything_is_trained(study: Study, recipe: Recipe) -> None:
    impossible = Row("table", recipe, ("sample.grid=respaced", "sample.grid.steps=5"), run="r")
    with pytest.raises(ValueError, match="discrete schedule"):
        estimate(replace(study, rows=(*study.rows, impossible)))


def test_rows_share_their_run_and_differ_in_their_settings(done: SimpleNamespace) -> None:
    assert [path.name for path in (done.folder / "runs").iterdir()] == ["r-seed0"]
    assert [o.facts["nfe"] for o in done.outcomes] == [3, 5]
    assert [o.scores["kid"].n for o in done.outcomes] == [40, 40]
    assert done.outcomes[0].scores["kid"].value != done.outcomes[1].scores["kid"].value


def test_what_is_done_is_skipped(study: Study, done: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object, **options: object) -> None:
        raise AssertionError("this was done already")

    monkeypatch.setattr(work, "train", never)
    monkeypatch.setattr(judges, "evaluate", never)
    again = carry_out(study, done.folder, device="cpu", quiet=True)
    assert [o.scores for o in again] == [o.scores for o in done.outcomes]


@pytest.mark.parametrize("earlier", [False, True])
def test_a_row_is_judged_anew_when_the_real_images_have_changed(
    study: Study, done: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    """A result of an earlier version knows its images by the reference of its scores."""
    shutil.copytree(done.folder / "results", tmp_path / "results")
    for file in (tmp_path / "results").glob("*.json"):
        tree = json.loads(file.read_text())
        file.write_text(json.dumps({k: v for k, v in tree.items() if not (earlier and k == "data")}))
    carry = partial(carry_out, study, tmp_path, runs=done.folder / "runs", device="cpu", quiet=True)
    called, evaluate = [], judges.evaluate
    monkeypatch.setattr(judges, "evaluate", lambda *a, **k: called.append(1) or evaluate(*a, **k))
    assert [one.scores for one in carry()] == [one.scores for one in done.outcomes] and not called
    real = judge.load_data

    def repainted(*asked: Any) -> Dataset:
        data = real(*asked)
        return replace(data, images=torch.cat((255 - data.images[:1], data.images[1:])))

    monkeypatch.setattr(judge, "load_data", repainted)
    carry()
    assert len(called) == len(study.rows)


@pytest.mark.parametrize("rule", ["version", "weights"])
def test_a_row_is_judged_anew_by_another_rule(
    study: Study, done: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """A name of a metric or of features is not what it means: their version, code and weights are."""
    shutil.copytree(done.folder / "results", tmp_path / "results")
    called, evaluate, find = [], judges.evaluate, judge.find_metric
    monkeypatch.setattr(judges, "evaluate", lambda *a, **k: called.append(1) or evaluate(*a, **k))
    if rule == "version":
        monkeypatch.setattr(judge, "find_metric", lambda name: replace(find(name), version=find(name).version + 1))
    else:
        other = judge.extractor("digits", (1, 8, 8))
        other.weights_hash = "0" * 64
        monkeypatch.setattr(judge, "extractor", lambda *asked: other)
    carry_out(study, tmp_path, runs=done.folder / "runs", device="cpu", quiet=True)
    assert len(called) == len(study.rows)


def test_only_the_row_whose_settings_changed_is_judged_anew(
    study: Study, done: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []

    def watched(run: object, **options: object) -> object:
        judged.append(str(run.recipe.sample.grid))  # type: ignore[attr-defined]
        raise NonFiniteError("as if")

    monkeypatch.setattr(work, "train", None)
    monkeypatch.setattr(judges, "evaluate", watched)
    changed = replace(study.rows[0], settings=("sample.grid.steps=4",))
    mixed = replace(study, rows=(changed, study.rows[1]))
    before = (done.folder / "results" / "two-seed0.json").read_text()
    first, second = carry_out(mixed, done.folder, device="cpu", quiet=True)
    (done.folder / "results" / "two-seed0.json").write_text(before)
    assert len(judged) == 1 and "steps=4" in judged[0]
    assert first.failed == "images not finite: as if" and second.scores == done.outcomes[1].scores


def test_a_run_that_diverges_is_a_finding_and_is_not_tried_again(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def explode(recipe: Recipe, folder: Path, **options: object) -> None:
        tried.append(folder)
        folder.mkdir(parents=True)
        raise Diverged("Loss was not finite at step 3.")

    monkeypatch.setattr(work, "train", explode)
    carry_out(study, tmp_path, quiet=True)
    outcomes = carry_out(study, tmp_path, quiet=True)
    assert len(tried) == 1
    assert {o.failed for o in outcomes} == {"diverged: Loss was not finite at step 3."}
    lines = pages.lines(study, outcomes, {})
    assert lines[0]["kid"] is None and str(lines[0]["note"]).startswith("diverged")


def cost_of(study: Study) -> Estimate:
    return Estimate(1, 32, 2, 80, 320, 1.0, 1.0, {"r": 100}, {"two": 3, "three": 5})


def test_the_page_carries_interval_n_floor_and_command(study: Study, done: SimpleNamespace, tmp_path: Path) -> None:
    page, numbers, tree = pages.write(study, done.outcomes, cost_of(study), tmp_path, "sfumato study mine")
    text = page.read_text()
    kid = done.outcomes[0].scores["kid"]
    assert kid.floor is not None
    real, machine = kid.protocol.reference, kid.protocol.provenance["machine"]
    assert f"**Judged against:** {real.dataset} {real.split} (m = {real.n:,})" in text
    assert f"**Machine:** {machine['device']}, torch {machine['torch']}" in text
    for needed in (
        "How many steps?",
        "n = 40",
        "`sfumato study mine`",
        "floor",
        str(pages.mean_cell([kid])),
        kid.protocol.protocol_id,
        "fewer are worse",
    ):
        assert needed in text, needed
    rows = list(csv.DictReader(numbers.open()))
    assert [float(row["KID[digits]"]) for row in rows] == [o.scores["kid"].value for o in done.outcomes]
    assert float(rows[0]["KID[digits] low"]) == kid.interval[0]
    stored = json.loads(tree.read_text())
    assert [row["scores"]["kid"]["value"] for row in stored["rows"]] == [o.scores["kid"].value for o in done.outcomes]
    assert stored["orderings"][0]["words"] in text and stored["cost"]["trained"] == 32


def test_pictures_are_written_and_shown(study: Study, done: SimpleNamespace, tmp_path: Path) -> None:
    from sfumato.report.curves import against_nfe

    def draw(study: Study, outcomes: list[Outcome]) -> dict[str, object]:
        return {"curve": against_nfe(pages.series(outcomes, "kid"), floor=pages.floor_of(outcomes, "kid"))}

    drawn = replace(study, pictures=draw)
    page, *_, picture = pages.write(drawn, done.outcomes, cost_of(study), tmp_path, "command")
    assert picture.name == "mine-curve.png" and picture.stat().st_size > 1000
    assert "![curve](mine-curve.png)" in page.read_text()


def test_a_student_begins_from_the_weights_of_its_teacher(recipe: Recipe, tmp_path: Path) -> None:
    """A student that learns nothing is its teacher."""
    still = override(recipe, ["train.images=16", "train.optimizer=adam", "train.optimizer.lr=1e-30"])
    made = Study(
        "s",
        "tiny",
        "?",
        "-",
        "-",
        rows=(Row("teacher", recipe), Row("student", still)),
        n=40,
        starts={"student": "teacher"},
    )
    space = Workspace(tmp_path, tmp_path / "runs", device="cpu", quiet=True)
    student = outcome_of(made, made.rows[1], 0, space).run
    assert student is not None and student.recipe.train.start == str(tmp_path / "runs" / "teacher-seed0")
    teacher = Run.open(tmp_path / "runs" / "teacher-seed0").network().state_dict()
    for name, value in student.network().state_dict().items():
        torch.testing.assert_close(value, teacher[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(studies()))
def test_every_study_runs_at_tiny_scale(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["study", name, "--scale", "tiny", "--out", str(tmp_path), "--device", "cpu", "--quiet"]
    assert main(words) == 0
    said = capfd.readouterr().out
    by_the_clock = any(recipe.train.minutes for recipe in find_study(name, "tiny").runs.values())
    trained = r"training images and [\d.]+ minutes of training" if by_the_clock else "training images"
    assert re.search(rf"Cost: \d+ runs?, [\d,]+ {trained}; sampling", said)
    assert said.index("Cost: ") < said.index("row ")
    tree = json.loads((tmp_path / f"{name}.json").read_text())
    assert all(row["scores"] or row["failed"] for row in tree["rows"])
    assert (tmp_path / f"{name}.md").read_text().count("\n| ") >= len(tree["rows"]) // len(tree["seeds"])


def test_a_part_of_a_study_and_more_seeds_by_one_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    part = ["--rows", "Muon 0.02", "--seeds", "0", "3"]
    words = ["study", "optimizers", "--scale", "tiny", *part, "--out", str(tmp_path)]
    assert main([*words, "--device", "cpu", "--quiet"]) == 0
    assert "2 runs, 2,048 training images" in capfd.readouterr().out
    tree = json.loads((tmp_path / "optimizers.json").read_text())
    assert [(row["row"], row["seed"]) for row in tree["rows"]] == [("Muon 0.02", 0), ("Muon 0.02", 3)]
    assert tree["command"] == "sfumato study optimizers --scale tiny --rows 'Muon 0.02' --seeds 0 3"
