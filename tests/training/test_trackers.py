"""Trackers copy what the run's own files hold; one that is not installed is refused before training."""

from __future__ import annotations

import csv
import json
import sys

import pytest

from sfumato.core.find import UnknownNameError, entries
from sfumato.runs.override import override
from sfumato.runs.recipe import RecipeError
from sfumato.training.loop import train


def recorded(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_a_table_holds_every_record_also_after_a_resume(tiny, tmp_path):
    recipe = override(tiny, ["train.track=csv", "train.rate=constant"])
    train(override(recipe, ["train.images=160"]), tmp_path, quiet=True)
    train(recipe, tmp_path, quiet=True, allow=("train.images",))
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [int(r["images"]) for r in rows] == [r["images"] for r in recorded(tmp_path)]
    assert [float(r["loss"]) for r in rows] == [r["loss"] for r in recorded(tmp_path)]
    assert any(name.startswith("loss_by_log_snr/") for name in rows[0])


def test_tensorboard_gets_curves_and_pictures(tiny, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra 'track' is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(
        override(
            tiny,
            [
                "train.track=tensorboard",
                "train.sheet_every=160",
                "train.evaluate_every=160",
                "evaluate.quick=60",
                "evaluate.extractor=pixels",
            ],
        ),
        tmp_path,
        quiet=True,
    )
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [(e.step, e.value) for e in events.Scalars("loss")]
    assert losses == [(r["images"], pytest.approx(r["loss"], rel=1e-6)) for r in recorded(tmp_path)]
    assert [e.step for e in events.Images("samples")] == [160, 320]
    assert [e.step for e in events.Images("samples/raw")] == [160, 320]
    assert [e.step for e in events.Scalars("score/FD[pixels]")] == [160, 320]


@pytest.mark.slow
def test_wandb_works_offline(tiny, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra 'track' is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(override(tiny, ["train.track=wandb"]), tmp_path / "run", quiet=True)
    files = list((tmp_path / "run" / "wandb").rglob("*.wandb"))
    assert len(files) == 1 and files[0].stat().st_size > 1000


def test_a_tracker_that_is_not_there_is_refused_with_the_remedy(tiny, tmp_path, monkeypatch):
    assert set(entries("tracker")) == {"csv", "tensorboard", "wandb"}
    with pytest.raises(UnknownNameError, match="wandb"):
        train(override(tiny, ["train.track=wandbb"]), tmp_path / "a", quiet=True)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RecipeError, match=r"pip install 'sfumato\[track\]'"):
        train(override(tiny, ["train.track=wandb"]), tmp_path / "b", quiet=True)
