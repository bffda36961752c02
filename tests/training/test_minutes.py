"""A budget of minutes is wall time: it ends in time, is logged often, and sheets take no more than their share."""

from __future__ import annotations

import json
import time

import pytest
import torch
from PIL import Image

from sfumato.cli._arguments import find_recipe
from sfumato.cli.train import train as command
from sfumato.core.find import entries
from sfumato.core.noise import SamplingNoise
from sfumato.runs.override import override
from sfumato.runs.recipe import Train
from sfumato.samplers.ddim import ddim
from sfumato.training import loop
from sfumato.training.hooks import live, sheets

MINUTES = 0.25


@pytest.mark.slow
def test_minutes_are_wall_time_with_sheets_inside_and_a_log_that_follows(tiny, tmp_path):
    """15 seconds hold hundreds of these steps: 50 records and a sheet at the end; the clock began 3 seconds ago."""
    recipe = override(tiny, [f"train.minutes={MINUTES}", "train.log_every=8192", "train.sheet_every=none"])
    began = time.monotonic() - 3
    run = loop.train(recipe, tmp_path / "run", quiet=True, began=began)
    assert time.monotonic() - began < 60 * MINUTES * 1.25  # a slow machine may be late by the last sheet
    records = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    steps = records[-1]["step"]
    assert len(records) >= min(50, steps) * 0.8
    spent = [record["spent"] for record in records]
    assert spent == sorted(spent) and (run.path / "sheets").is_dir()


def test_a_sheet_that_would_take_more_than_its_share_has_fewer_columns(tiny, tmp_path, monkeypatch):
    """With no share for the end, a single column is left."""
    monkeypatch.setattr(sheets, "SHARE", (0.0, 0.0))
    monkeypatch.setattr(loop._Loop, "_stop", lambda self: None)  # however late a slow machine is
    recipe = override(tiny, ["train.minutes=0.02", "train.sheet_every=none"])
    run = loop.train(recipe, tmp_path / "run", quiet=True)
    (only,) = (run.path / "sheets").glob("*.png")
    width, height = Image.open(only).size
    assert 8 * width < height  # ten rows of one column


def test_a_sheet_is_left_when_the_minutes_are_over(tiny, tmp_path, capsys):
    """The preparation alone took the budget: one step, a checkpoint, no sheet, and a line that says so."""
    began = time.monotonic() - 60
    run = loop.train(override(tiny, ["train.minutes=0.5"]), tmp_path / "run", began=began)
    assert run.checkpoint.state["step"] == 1 and not list((run.path / "sheets").rglob("*.png"))
    assert "the minutes are over. `sfumato sample` draws one" in capsys.readouterr().out


def test_a_score_while_training_shrinks_to_its_share_of_the_minutes_or_is_left_out(tiny, tmp_path, capsys):
    fields = ["train.minutes=0.02", "train.evaluate_every=16", "evaluate.quick=100000", "train.sheet_every=none"]
    run = loop.train(override(tiny, fields), tmp_path / "run")
    said = capsys.readouterr().out
    assert "A score of 100000 images would take more than 2% of the minutes" in said
    assert all(json.loads(line)["n"] < 1000 for line in (run.path / "scores.jsonl").read_text().splitlines())


def test_previews_of_a_long_walk_take_few_steps_of_ddim(tiny, tmp_path, monkeypatch):
    """Ancestral sampling needs its 200 steps; where a preview takes fewer, it goes by ddim, and keeps a short walk."""
    seen = []
    monkeypatch.setattr(sheets, "live_source", lambda *args: seen.append(live.live_source(*args)) or seen[-1])
    chain = ["schedule=linear", "schedule.steps=200", "target=eps", "weighting=simple", "draw=uniform", "c_in=one"]
    chain += ["c_noise=index", "sample.grid=full", "sample.sampler=ancestral", "train.sheet_every=none"]
    run = loop.train(override(tiny, [*chain, "train.images=32"]), tmp_path / "run", quiet=True)
    assert {len(source.grid) - 1 for source in seen} == {live.FEWEST}
    again = [next(source.states([0], torch.tensor([1]))).x for source in seen[:1] * 2]
    assert torch.equal(*again) and run.recipe.sample.sampler.name == "ancestral"
    x = seen[0].floats([0], torch.tensor([1]))
    noise = SamplingNoise([0], seen[0].shape)
    *_, last = ddim(
        seen[0].denoiser, seen[0].grid[0].sigma.float() * noise.start(), seen[0].grid, label=torch.tensor([1])
    )
    assert torch.equal(x, last.x)


def test_epochs_are_passes_through_the_training_images(tmp_path):
    for i, words in enumerate((("--epochs", 2.0), ("train.epochs=2", None))):
        fields = ("data.first=32", "train.batch=16", "network.width=16", "network.mult=1,1", "sample.grid.steps=2")
        folder = str(tmp_path / str(i))
        extra = () if words[1] else (words[0],)
        assert command("edm-digits", (*fields, *extra), out=folder, epochs=words[1], quiet=True) == 0
        saved = json.loads((tmp_path / str(i) / "recipe.json").read_text())["recipe"]
        assert saved["train"]["images"] == 64


def test_none_is_the_empty_choice_of_what_holds_several():
    for name in ("edm-digits", "ddpm-cifar10", "adm-digits"):
        assert find_recipe(name, ["network.attention=none"]).network.options["attention"] == ()
    assert find_recipe("edm-digits", ["ema.half_life=none"]).ema.half_life == ()


def test_no_recipe_sets_how_often_is_logged():
    """At the default there are at least 50 records a run, whatever its budget (`Train.log_every`)."""
    made = {name: recipe().train.log_every for name, recipe in entries("recipe").items()}
    assert {name for name, every in made.items() if every != Train.log_every} == set()
