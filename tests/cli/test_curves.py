"""``sfumato curves`` draws what the run's logs hold, also of several runs and of scores while training."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image


def test_a_run_draws_its_curves(cli, labelled, tmp_path):
    said = cli("curves", labelled, "--out", tmp_path)
    assert said.code == 0, said.err
    for name in ("training.png", "loss-by-level.png"):
        assert str(tmp_path / name) in said.out
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 300


def test_several_runs_share_a_picture_and_scores_are_drawn(cli, labelled, unlabelled, tmp_path):
    scored = shutil.copytree(labelled, tmp_path / "scored")
    record = {"step": 1, "name": "FD[pixels]", "n": 60, "protocol": "abc", "value": 3.0, "interval": [2.0, 4.0]}
    (scored / "scores.jsonl").write_text("".join(json.dumps(record | {"images": i}) + "\n" for i in (64, 128)))
    said = cli("curves", scored, unlabelled, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    made = sorted(p.name for p in (tmp_path / "out").glob("*.png"))
    assert made == ["loss-by-level-0-scored.png", "loss-by-level-1-unlabelled.png", "scores.png", "training.png"]


def test_what_is_no_run_or_has_no_record_is_an_error(cli, labelled, tmp_path):
    assert cli("curves", tmp_path / "nothing").code == 2
    fresh = shutil.copytree(labelled, tmp_path / "fresh")
    (fresh / "metrics.jsonl").write_text("")
    said = cli("curves", fresh)
    assert said.code == 2 and "log interval" in said.err


def test_runs_lists_what_is_on_disk(cli, labelled, unlabelled):
    said = cli("runs", labelled.parent.parent)
    assert said.code == 0 and "labelled" in said.out and "edm-digits" in said.out and "128" in said.out


@pytest.mark.parametrize(
    "text", ["[1]", '{"recipe": "x"}', '{"recipe": {"train": {"images": "many", "minutes": []}}}', "{"]
)
def test_runs_shows_a_damaged_run_as_unreadable_beside_the_others(cli, tmp_path, text):
    (tmp_path / "damaged" / "results").mkdir(parents=True)
    (tmp_path / "damaged" / "recipe.json").write_text(text)
    (tmp_path / "damaged" / "metrics.jsonl").write_text("[]\n")
    (tmp_path / "damaged" / "results" / "a.json").write_text('{"scores": [3]}')
    said = cli("runs", tmp_path)
    assert said.code == 0 and "damaged" in said.out and "(unreadable)" in said.out
