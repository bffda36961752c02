"""An evaluation killed by a real SIGKILL makes only the images that are missing, and scores as an uninterrupted one."""

from __future__ import annotations

import json
import signal
import time

from tests.processes.processes import Alone, command_line

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
    process = Alone(command_line, words, environment={"XDG_CACHE_HOME": str(cache)})
    end = time.monotonic() + 120
    while len(lines(cache)) < 8:
        assert process.poll() is None, process.said()
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
