"""``sfumato sweep``: blocks differ by the swept field alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from sfumato.evaluation import sweep as sweeps
from sfumato.report import sweep as pictures
from sfumato.report.save import description


def test_each_block_is_the_run_sampled_with_that_value(labelled: Path, tmp_path: Path, cli, monkeypatch) -> None:
    """The images of a block are those of the run with the value set, on the same seeds and labels."""
    seen = {}
    draw = pictures.sweep

    def spy(sources, seeds, labels, **options):
        seen.update({name: source(seeds, labels) for name, source in sources.items()}, labels=labels)
        return draw(sources, seeds, labels, **options)

    monkeypatch.setattr(pictures, "sweep", spy)
    out = tmp_path / "s.png"
    said = cli("sweep", labelled, "guidance=1,30", "--classes", "0,7", "--n", 2, "--out", out, "--device", "cpu")
    assert said.code == 0, said.err
    assert seen["labels"].tolist() == [0, 0, 7, 7]
    assert not torch.equal(seen["guidance 1"], seen["guidance 30"])
    again = tmp_path / "t.png"
    cli("sweep", labelled, "guidance=1,30", "--classes", "0,7", "--n", 2, "--out", again, "--device", "cpu")
    assert Image.open(out).tobytes() == Image.open(again).tobytes()
    assert "Uncurated, seeds 0..3" in description(out)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("guidance=2", "at least two values"),
        ("grid.steps=2,2", "each stands once; 2 stands twice"),
        ("guidance=1,2 classes=3,3", "Values of classes are compared"),
        ("guidance=1,2 --metrics kid", "Give --score N, or leave them out"),
        ("guidance=1,2 --score 1000000000000", "at most 10,000,000 images"),
        ("guidence=1,2", "guidance"),
        ("sampler=heun,eulr", "euler"),
        ("train.batch=1,2", "belongs to training"),
    ],
)
def test_bad_sweeps_say_what_to_do(labelled: Path, cli, field: str, words: str) -> None:
    said = cli("sweep", labelled, *field.split(), "--device", "cpu")
    assert said.code == 2 and words in said.err


def test_a_scored_sweep_shows_saturation_beside_that_of_real_images(labelled: Path, tmp_path: Path, cli, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run = tmp_path / "run"
    shutil.copytree(labelled, run)
    said = cli("sweep", run, "guidance=1,30", "--score", 40, "--metrics", "is", "--n", 1, "--device", "cpu")
    assert said.code == 2 and "no logits" in said.err  # of pixels there is no Inception Score
    said = cli("sweep", run, "guidance=1,30", "--score", 40, "--metrics", "saturation,is", "--n", 1, "--device", "cpu")
    assert said.code == 0 and "* inception-score was not computed: " in said.out, said.err
    assert "saturation" in said.out
    (file,) = (run / "results").glob("sweep-guidance-*.json")
    tree = json.loads(file.read_text())
    curve, rows = tree["curves"]["guidance"], tree["tables"]["sweep of guidance"]
    assert [row["guidance"] for row in rows] == ["1", "30", "real images"] and "real images" in said.out
    assert rows[2]["saturation"]["value"] == curve["floors"]["saturation"]
    low, high = curve["series"]["saturation"]["y"]
    assert 0 < low < high < 1 and 0 < curve["floors"]["saturation"] < 1
    assert file.with_name(f"{file.stem}-guidance.png").exists()
    asked = ["sweep", run, "guidance=1,30", "--score", 40, "--metrics", "saturation,is", "--n", 1, "--device", "cpu"]
    judged, evaluate = [], sweeps.evaluate
    monkeypatch.setattr(sweeps, "evaluate", lambda *a, **k: judged.append(1) or evaluate(*a, **k))
    assert cli(*asked).code == 0 and not judged
    monkeypatch.setattr(sweeps, "judged_by", lambda *a: {"reference": "other images", "n": 360})
    assert cli(*asked).code == 0 and len(judged) == 2
    said = cli("sweep", run, "guidance=1,30", "--score", 40, "--metrics", "per-class", "--device", "cpu")
    assert said.code == 2 and "per-class is a table" in said.err
