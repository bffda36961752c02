"""An evaluation killed by a real SIGKILL makes only the images that are missing, and scores as an uninterrupted one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from sfumato.cli import main
from sfumato.runs.override import override
from sfumato.training.loop import train

COUNT = 80


def lines(cache):
    return [line for file in cache.glob("sfumato/generated/*/blocks.jsonl") for line in file.read_text().splitlines()]


def test_sigkill_loses_one_block_and_changes_no_score(tiny, tmp_path, monkeypatch):
    train(override(tiny, ["train.images=32"]), tmp_path / "run", quiet=True)
    words = ["evaluate", str(tmp_path / "run"), "--n", str(COUNT), "sample.batch=4", "grid.steps=6", "--device", "cpu"]
    words += ["--extract", "pixels", "--quiet"]
    cache = tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache)}
    process = subprocess.Popen(
        [sys.executable, "-m", "sfumato", *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    while len(lines(cache)) < 8:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "no block appeared"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = lines(cache)
    assert len(kept) < 2 * COUNT // 4, "the kill came too late to show anything"
    assert not (tmp_path / "run" / "results").exists()
    scores = []
    for folder in (cache, tmp_path / "straight"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        assert main(words) == 0
        newest = max((tmp_path / "run" / "results").glob("*.json"), key=lambda p: p.stat().st_mtime_ns)
        scores.append([(s["name"], s["value"], s["interval"]) for s in json.loads(newest.read_text())["scores"]])
    assert set(kept) <= set(lines(cache)), "a whole block was made again"
    assert scores[0] == scores[1]
