"""Scores while training: recorded, the best kept as a run, and what was chosen by a reference is marked there."""

from __future__ import annotations

import json

import pytest

from sfumato.cli import main
from sfumato.data import load
from sfumato.evaluation import evaluate
from sfumato.runs import checkpoint
from sfumato.runs.override import override
from sfumato.runs.recipe import RecipeError
from sfumato.runs.run import Run
from sfumato.training.hooks import scores
from sfumato.training.loop import train

FIELDS = (
    "train.evaluate_every=96",
    "evaluate.quick=60",
    "evaluate.extractor=pixels",
    "train.rate=constant",
    "ema.power=0.05,0.10",
    "ema.snapshots=8",
)


def records(path):
    return [json.loads(line) for line in (path / "scores.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    return train(override(tiny, FIELDS), tmp_path_factory.mktemp("scored") / "run", quiet=True, device="cpu")


def test_scores_are_recorded_and_the_best_is_a_run_of_its_own(run):
    found = records(run.path)
    assert [r["images"] for r in found] == [96, 192, 288, 320]
    least = min(found, key=lambda r: r["value"])
    values = [r["value"] for r in found]
    assert [r["best"] for r in found] == [v == min(values[: i + 1]) for i, v in enumerate(values)]
    best = Run.open(run.path / "best")
    assert best.checkpoint.state["seen"] == least["images"] and best.about["selected"]["value"] == least["value"]
    assert checkpoint.steps(run.path / "best" / "checkpoints") == [least["step"]]
    assert run.checkpoint.state["seen"] == 320  # the last one stays
    assert set(best.checkpoint.tensors) == {"network", "ema-power-0.05", "ema-power-0.10", "ema-half-0.001"}


def test_the_best_is_marked_on_the_reference_that_chose_it(run):
    marked = evaluate(Run.open(run.path / "best"), n=60, metrics=("fd",), quiet=True, device="cpu")
    flags = [f for f in marked.scores[0].flags if "selected on this reference" in f]
    assert len(flags) == 1 and "checkpoint, best of" in flags[0] and "FD[pixels]" in flags[0]
    assert marked.provenance["selected"][0]["candidates"] >= 1
    plain = evaluate(run, n=60, metrics=("fd",), quiet=True, device="cpu")
    assert not [f for f in plain.scores[0].flags if "selected" in f] and "selected" not in plain.provenance


def test_the_same_seeds_score_the_same_weights_alike(run):
    """The record is the score that a full evaluation gives to the same n, seeds and weights."""
    again = evaluate(run, n=60, metrics=("fd",), quiet=True, device="cpu").scores[0]
    last = records(run.path)[-1]
    assert last["value"] == pytest.approx(again.value, rel=1e-6)
    assert last["protocol"] == again.protocol.protocol_id


def test_a_resumed_run_scores_as_an_uninterrupted_one(run, tiny, tmp_path):
    recipe = override(tiny, FIELDS)
    train(override(recipe, ["train.images=160"]), tmp_path, quiet=True, device="cpu")
    assert [r["images"] for r in records(tmp_path)] == [96, 160]
    train(recipe, tmp_path, quiet=True, device="cpu", allow=("train.images",))
    straight = {r["images"]: r["value"] for r in records(run.path)}
    for r in records(tmp_path):
        if r["images"] in straight:
            assert r["value"] == straight[r["images"]]


def test_the_width_is_chosen_by_a_score_and_marked(run, capsys):
    assert main(["ema", str(run.path), "--choose", "--n", "60", "--width", "0.05", "0.08", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "0.05" in said and "0.08" in said and "selected on test" in said
    name = said.split("Kept ")[1].split(",")[0]
    marked = evaluate(run, n=60, metrics=("fd",), use=name, quiet=True, device="cpu")
    assert any("selected on this reference: the width of the average, best of 2" in f for f in marked.scores[0].flags)
    assert main(["ema", str(run.path)]) == 0
    said = capsys.readouterr().out
    assert "best of 2 by FD[pixels]" in said and "8 snapshots" in said and "power-0.10" in said


def test_a_run_without_snapshots_is_told_how_to_keep_them(tiny, tmp_path, capsys):
    train(tiny, tmp_path / "plain", quiet=True, device="cpu")
    for words in (["--choose"], ["--width", "0.08"]):
        assert main(["ema", str(tmp_path / "plain"), *words, "--device", "cpu"]) == 2
        said = capsys.readouterr().err
        assert "has no snapshots. Train with ema.snapshots=16" in said and "Give --width" not in said


def test_what_cannot_be_scored_is_refused_before_training(tiny, tmp_path):
    with pytest.raises(RecipeError, match="evaluate.quick"):
        train(override(tiny, ["train.evaluate_every=96", "evaluate.quick=1"]), tmp_path, quiet=True)
    with pytest.raises(ValueError, match="FD needs at least 40 images"):
        train(override(tiny, ["train.evaluate_every=96", "evaluate.quick=30"]), tmp_path, quiet=True)


def test_images_of_the_reference_are_not_scored_while_training(tiny, tmp_path, monkeypatch):
    """As `evaluate` refuses them; the training goes on."""
    real = load("digits", split="test").images
    monkeypatch.setattr(scores, "images_of_all", lambda ranks, source, seeds, labels: real[: len(seeds)])
    train(override(tiny, FIELDS), tmp_path, quiet=True, device="cpu")
    assert records(tmp_path) == [] and not (tmp_path / "best").exists()
