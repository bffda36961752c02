"""A budget of minutes is wall time: it ends in time, is logged often, and sheets take no more than their share."""

from __future__ import annotations

import json
import time

import pytest
from PIL import Image

from sfumato.cli._arguments import find_recipe
from sfumato.cli.train import train as command
from sfumato.runs.override import override
from sfumato.training import loop
from sfumato.training.hooks import sheets

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
    recipe = override(tiny, ["train.minutes=0.02", "train.sheet_every=none"])
    run = loop.train(recipe, tmp_path / "run", quiet=True)
    (only,) = (run.path / "sheets").glob("*.png")
    width, height = Image.open(only).size
    assert 8 * width < height  # ten rows of one column


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
