"""The commands under torchrun itself: one run, one set of images, one score, one voice."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from PIL import Image
from tests.conftest import TINY

from sfumato.cli import main


def torchrun(*words: str, cache) -> subprocess.CompletedProcess:
    """Run a command in two processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache)}
    call = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "sfumato", *words]
    return subprocess.run(call, env=environment, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
def test_a_run_from_training_to_score(tmp_path, monkeypatch):
    run, cache = str(tmp_path / "run"), tmp_path / "cache"
    made = torchrun("train", "edm-digits", *TINY, "train.images=64", "--out", run, "--device", "cpu", cache=cache)
    assert made.returncode == 0, made.stderr
    assert made.stdout.count(": done.") == made.stdout.count("Next:") == 1, "the first process alone speaks"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [32, 64]

    words = ["sample.batch=8", "--n", "30", "--device", "cpu"]
    pictures = torchrun("sample", run, *words, "--images", str(tmp_path / "two"), cache=cache)
    assert pictures.returncode == 0 and pictures.stdout.count("30 images written") == 1, pictures.stderr
    assert main(["sample", run, *words, "--images", str(tmp_path / "one")]) == 0
    for path in sorted((tmp_path / "one").glob("seed-*.png")):
        assert Image.open(path).tobytes() == Image.open(tmp_path / "two" / path.name).tobytes()

    score = torchrun("evaluate", run, "sample.batch=16", "--n", "80", "--device", "cpu", cache=cache)
    assert score.returncode == 0 and score.stdout.count("Written to") == 1, score.stderr
    (file,) = (tmp_path / "run" / "results").glob("*.json")
    two = json.loads(file.read_text())
    file.unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-of-one"))
    assert main(["evaluate", run, "sample.batch=16", "--n", "80", "--device", "cpu"]) == 0
    (file,) = (tmp_path / "run" / "results").glob("*.json")
    one = json.loads(file.read_text())
    assert two["provenance"]["machine"]["processes"] == 2
    assert [s["value"] for s in one["scores"]] == pytest.approx([s["value"] for s in two["scores"]], rel=1e-6)


def test_work_that_is_not_shared_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["list", "samplers"]) == 2
    assert "2 processes were started" in capsys.readouterr().err
