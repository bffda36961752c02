"""Runs that are killed ten times, inside a save, twice in a row, or on a full disk (reliability P1, P2, P4, P7, P9)."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.faults.test_killed_training import start, wait_for
from tests.processes.processes import Alone, command_line

from sfumato.runs import checkpoint
from sfumato.runs.override import override
from sfumato.training.loop import train


@pytest.fixture
def saving(tiny):
    """The tiny recipe, saving after every step."""
    return override(tiny, ["train.rate=constant", "train.save_every=0.0", "train.images=640"])


def log_of(folder: Path) -> list[dict]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


@pytest.mark.slow
def test_ten_kills_at_random_moments_leave_no_trace(saving, tmp_path):
    """P1, P2: ten SIGKILLs and SIGTERMs between steps and inside saves; weights, averages, optimiser and log of the
    run are those of one that was never interrupted, bit for bit."""
    recipe = override(saving, ["train.images=3200", "train.save_every=0.002"])
    chance = random.Random(0)
    folder, straight = tmp_path / "killed", tmp_path / "straight"
    assert start(recipe, straight).wait() == 0
    for i in range(10):
        before = (checkpoint.steps(folder / "checkpoints") or [0])[-1]
        process = start(recipe, folder)
        wait_for(lambda last=before: (checkpoint.steps(folder / "checkpoints") or [0])[-1] > last, process)
        time.sleep(0.15 * chance.random())
        process.send_signal(signal.SIGKILL if i % 2 else signal.SIGTERM)
        assert process.wait() in (-signal.SIGKILL, 128 + signal.SIGTERM)
    assert checkpoint.steps(folder / "checkpoints")[-1] < 200, "the run ended before the last kill"
    assert start(recipe, folder).wait() == 0
    a, b = (checkpoint.latest(path / "checkpoints") for path in (straight, folder))
    assert a is not None and b is not None and a.state["step"] == b.state["step"] == 200
    assert a.tensors.keys() == b.tensors.keys()
    for group, tensors in a.tensors.items():
        assert all(torch.equal(value, b.tensors[group][name]) for name, value in tensors.items()), group
    assert log_of(straight) == log_of(folder)


def test_sigkill_inside_a_save_leaves_a_part_that_nobody_takes(saving, tmp_path):
    """P1: killed while step-N.tmp is being written, the run goes on from the whole checkpoint before it."""
    folder = tmp_path / "run"
    parts = folder / "checkpoints"
    for _ in range(20):
        process = start(override(saving, ["train.images=1000000"]), folder)
        wait_for(lambda: len(checkpoint.steps(parts)) == 2, process)
        wait_for(lambda: any(name.endswith(".tmp") for name in os.listdir(parts)), process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if left := list(parts.glob("*.tmp")):
            break
    else:
        pytest.fail("no kill fell into a save")
    whole = checkpoint.latest(parts)
    assert whole is not None and f"{whole.path.name}.tmp" not in [p.name for p in left]
    seen = whole.state["seen"]
    resumed = train(override(saving, [f"train.images={seen + 32}"]), folder, quiet=True, allow=("train.images",))
    assert resumed.checkpoint.state["seen"] == seen + 32 and not list(parts.glob("*.tmp"))


def test_a_second_signal_leaves_at_once(tiny, tmp_path):
    """P4: the first signal waits for the step, the second does not: its own number is the exit code."""
    recipe = override(tiny, ["train.batch=96", "network.width=64", "train.images=1000000", "train.log_every=96"])
    folder = tmp_path / "run"
    process = start(recipe, folder)
    log = folder / "metrics.jsonl"
    wait_for(lambda: log.exists() and log.stat().st_size > 0, process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGUSR1)
    # both may be handled between two lines of Python in either order: the later one decides
    assert process.wait() in (128 + signal.SIGUSR1, 128 + signal.SIGTERM)
    assert checkpoint.steps(folder / "checkpoints") == [], "it finished its step and saved"


def test_a_full_disk_ends_the_run_with_what_to_do(tiny, tmp_path):
    """P7: on a file system of 600 kB the save fails: exit 2, the reason and the remedy, no .tmp, no stack trace."""
    words = ["train", "edm-digits", "data.first=96", "network.width=16", "network.mult=1,1", "network.blocks=1",
             "network.embedding=32", "train.batch=16", "train.images=160", "train.save_every=0.0",
             "sample.grid.steps=2", "--device", "cpu", "--quiet", "--out"]  # fmt: skip
    mount = tmp_path / "small"
    mount.mkdir()
    inside = f'mount -t tmpfs -o size=600k tmpfs {mount} && {{ "$@"; echo "code $?"; find {mount}; }}'
    command = ["unshare", "-rm", "sh", "-c", inside, "sh", sys.executable, "-m", "sfumato", *words, str(mount / "run")]
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(mount)], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small file system (user namespaces are off)")
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert "code 2" in done.stdout, done.stdout + done.stderr
    assert "space" in done.stderr and "earlier checkpoints are untouched" in done.stderr
    assert "Traceback" not in done.stderr and ".tmp" not in done.stdout


def test_endless_nan_exits_4_and_names_step_and_samples(tmp_path):
    """P9: a learning rate beyond all bounds, from the command line: exit 4, where it happened and what to change."""
    words = ["train", "edm-digits", "data.first=96", "network.width=16", "network.mult=1,1", "network.blocks=1",
             "network.embedding=32", "train.batch=16", "train.images=6400", "train.optimizer=adam",
             "train.optimizer.lr=1e30", "train.bad_in_a_row=3", "--device", "cpu", "--quiet", "--out"]  # fmt: skip
    process = Alone(command_line, [*words, str(tmp_path / "run")])
    assert process.wait() == 4, process.said()
    said = process.said()
    assert "not finite at step" in said and "samples" in said and "Lower the learning rate" in said
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def halfway_and_end(tiny, tmp_path_factory):
    """A run of ten steps, and one of twenty that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = override(tiny, ["train.rate=constant", "train.save_every=0.0"])
    return tuple(train(override(recipe, [f"train.images={n}"]), folder / str(n), quiet=True).path for n in (160, 320))


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_damaged_newest_checkpoint_costs_one_interval_only(saving, halfway_and_end, tmp_path, damage):
    """P5, P6: the run resumes from the checkpoint before it, says so, and ends as if nothing had happened."""
    shutil.copytree(halfway_and_end[0], tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "step-10"
    file = newest / "optimizer-0.safetensors"
    if damage == "flip":
        content = bytearray(file.read_bytes())
        content[-40] ^= 4
        file.write_bytes(content)
    else:
        os.truncate(file, file.stat().st_size // 2)
    with pytest.warns(UserWarning, match="DAMAGED CHECKPOINT.*step-10.optimizer-0.safetensors"):
        resumed = train(override(saving, ["train.images=320"]), tmp_path / "run", quiet=True, allow=("train.images",))
    straight = checkpoint.latest(halfway_and_end[1] / "checkpoints")
    for group, tensors in straight.tensors.items():
        assert all(torch.equal(v, resumed.checkpoint.tensors[group][k]) for k, v in tensors.items()), group
