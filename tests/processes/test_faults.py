"""Real signals to one of two processes: both save and leave together, or both end; neither waits for ever."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
from tests.processes.processes import codes, start, until

from sfumato.processes import heartbeat
from sfumato.processes.heartbeat import LOST_EXIT
from sfumato.runs import checkpoint
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.runs.run import Run
from sfumato.training.loop import train


def train_here(tree, folder, silence=heartbeat.SILENCE) -> None:
    """Work of a process: train a recipe, as the command line does; its errors go nowhere."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    heartbeat.SILENCE, heartbeat.PERIOD = silence, min(heartbeat.PERIOD, silence / 10)
    train(Recipe.from_json(tree), folder, device="cpu", quiet=True)


@pytest.fixture
def endless(tiny):
    """A run of hours that saves after every step."""
    return override(tiny, ["train.images=10000000", "train.rate=constant", "train.save_every=0.0"])


def running(recipe, folder, *arguments):
    """Two processes that have taken a step."""
    processes = start(train_here, 2, recipe.to_json(), folder, *arguments)
    until(lambda: checkpoint.steps(folder / "checkpoints"), processes)
    return processes


def test_sigterm_to_one_saves_and_ends_all(endless, tmp_path):
    """SIGTERM to the process that writes nothing: both exit 143 after a checkpoint, which one process goes on from."""
    recipe = override(endless, ["train.save_every=60.0", "train.log_every=16"])
    processes = start(train_here, 2, recipe.to_json(), tmp_path)
    log = tmp_path / "metrics.jsonl"
    until(lambda: log.exists() and log.stat().st_size > 0, processes)
    os.kill(processes[1].pid, signal.SIGTERM)
    assert codes(processes, 60) == [143, 143]
    seen = checkpoint.latest(tmp_path / "checkpoints").state["seen"]
    assert seen > 0
    longer = override(recipe, [f"train.images={seen + 16}"])
    run = train(longer, tmp_path, device="cpu", quiet=True, allow=("train.images",))
    assert Run.open(run.path).checkpoint.state["seen"] == seen + 16


@pytest.mark.parametrize("victim", [0, 1])
def test_sigkill_of_one_ends_the_other(endless, tmp_path, victim):
    """The survivor ends with an error within 60 s, and the last checkpoint is whole."""
    processes = running(endless, tmp_path)
    processes[victim].kill()
    found = codes(processes, 60)
    assert found[victim] == -signal.SIGKILL and found[1 - victim] not in (0, None)
    assert checkpoint.latest(tmp_path / "checkpoints") is not None


@pytest.mark.slow
def test_a_process_that_falls_silent_ends_the_other(endless, tmp_path):
    """A stopped process keeps its connections, so no call fails; the heartbeat notices, and the other leaves with 5."""
    processes = running(endless, tmp_path, 3.0)
    os.kill(processes[1].pid, signal.SIGSTOP)
    asked = time.monotonic()
    processes[0].join(60)
    assert processes[0].exitcode == LOST_EXIT and time.monotonic() - asked > 2
    codes(processes, 0)
