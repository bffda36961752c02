"""Real processes, real signals: nothing is lost (reliability P1, P4, P7)."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.processes.processes import Alone

from sfumato.runs import checkpoint
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.training.loop import train


def training(recipe: Recipe, folder: Path, limit: int) -> None:
    if limit:
        sys.dont_write_bytecode = True  # it would be cut as well, and stay
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    train(recipe, folder, quiet=True)


def start(recipe: Recipe, folder: Path, limit: int = 0) -> Alone:
    """Train in another process, whose files end at a limit in bytes if one is given."""
    return Alone(training, recipe, folder, limit)


def wait_for(condition, process, seconds=120.0) -> None:
    """Wait until a condition holds, failing if the process ends first."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.said()
        assert time.monotonic() < end, "the process made no progress"
        time.sleep(0.01)


@pytest.fixture
def saving(tiny):
    """The tiny recipe, saving after every step."""
    return override(tiny, ["train.rate=constant", "train.save_every=0.0", "train.images=640"])


def test_sigkill_loses_at_most_one_interval(saving, tmp_path):
    """P1: killed at a random moment while saving all the time, the run resumes to the uninterrupted result."""
    folder = tmp_path / "killed"
    process = start(saving, folder)
    wait_for(lambda: len(checkpoint.steps(folder / "checkpoints")) == 2, process)
    time.sleep(0.05 + (os.getpid() % 10) / 20)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = checkpoint.latest(folder / "checkpoints")
    assert found is not None and found.state["step"] >= 2
    resumed = train(saving, folder, quiet=True)
    straight = train(saving, tmp_path / "straight", quiet=True)
    assert resumed.checkpoint.state["step"] == straight.checkpoint.state["step"] == 40
    for group, tensors in straight.checkpoint.tensors.items():
        for name, value in tensors.items():
            # another process may run on another number of threads: equal up to the rounding of sums
            assert torch.allclose(value, resumed.checkpoint.tensors[group][name], rtol=1e-3, atol=1e-5), (group, name)
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 40


def test_sigterm_saves_and_exits_143(tiny, tmp_path):
    """P4: SIGTERM in the middle of training ends it within 10 s with 143 and a checkpoint at that very step."""
    recipe = override(tiny, ["train.images=1000000", "train.save_every=60.0"])
    folder = tmp_path / "run"
    process = start(recipe, folder)
    log = folder / "metrics.jsonl"
    wait_for(lambda: log.exists() and log.stat().st_size > 0, process)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert time.monotonic() - asked < 10
    found = checkpoint.latest(folder / "checkpoints")
    logged = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert found is not None and found.state["step"] >= logged[-1] > 0


def test_full_disk_is_a_clear_error(saving, tmp_path):
    """P7: a disk that takes no more bytes ends the run with an error; what was saved before stays whole."""
    folder = tmp_path / "run"
    train(override(saving, ["train.images=32"]), folder, quiet=True)
    before = checkpoint.steps(folder / "checkpoints")
    process = start(override(saving, ["train.images=32", "train.keep=3"]), folder)
    assert process.wait(timeout=120) == 0  # nothing to do
    longer = tmp_path / "longer"
    process = start(saving, longer, limit=20_000)
    assert process.wait(timeout=120) != 0
    assert "File too large" in process.said() or "No space" in process.said()
    assert not list((longer / "checkpoints").glob("*.tmp")) and checkpoint.steps(longer / "checkpoints") == []
    assert checkpoint.steps(folder / "checkpoints") == before
