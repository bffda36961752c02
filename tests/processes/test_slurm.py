"""The SLURM script, with stand-ins for srun and scontrol: who is queued again, and a run that goes on afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import TINY

from sfumato.runs import checkpoint

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm_train.sh"
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
pids=()
for ((i = 0; i < SLURM_NTASKS; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & pids+=($!)
done
echo "${pids[@]}" > "$NOTES/pids"
worst=0
for pid in "${pids[@]}"; do wait "$pid"; code=$?; ((code > worst)) && worst=$code; done
exit $worst
"""
SCONTROL = """#!/bin/bash
if [[ $1 == show ]]; then echo 127.0.0.1; else echo "$@" >> "$NOTES/scontrol"; fi
"""


@pytest.fixture
def cluster(tmp_path):
    """The environment of a job of two tasks on this machine; notes of what was asked lie under NOTES."""
    programs, notes = tmp_path / "bin", tmp_path / "notes"
    for folder in (programs, notes):
        folder.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "here", "SLURM_NTASKS": "2"}
    path = f"{programs}:{os.environ['PATH']}"
    return {**os.environ, **job, "PATH": path, "PYTHON": sys.executable, "NOTES": str(notes)}


@pytest.mark.parametrize(("code", "queued"), [(0, False), (138, True), (143, False), (1, False), (4, False)])
def test_only_the_time_limit_queues_the_job_again(cluster, tmp_path, code, queued):
    """The script hands on the exit code, the words after it, and a rank to each process."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/bash\necho "$RANK/$WORLD_SIZE $LOCAL_RANK $MASTER_ADDR $@"\nexit {code}\n')
    stand_in.chmod(0o755)
    words = [str(SCRIPT), "edm-digits", "sample.grid=karras", "--out", "a folder"]
    done = subprocess.run(words, env={**cluster, "PYTHON": str(stand_in)}, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    said = sorted(line for line in done.stdout.splitlines() if "/" in line)
    rest = "127.0.0.1 -m sfumato train edm-digits sample.grid=karras --out a folder"
    assert said == [f"0/2 0 {rest}", f"1/2 1 {rest}"]
    asked = Path(cluster["NOTES"]) / "scontrol"
    assert (asked.read_text().split() == ["requeue", cluster["SLURM_JOB_ID"]]) if queued else not asked.exists()


@pytest.mark.slow
def test_a_run_goes_on_after_the_time_limit(cluster, tmp_path):
    """SIGUSR1 to the processes: saved, 138, queued again; the second start finishes the run."""
    folder = tmp_path / "run"
    words = [str(SCRIPT), "edm-digits", *TINY, "train.images=800", "--out", str(folder), "--device", "cpu"]
    first = subprocess.Popen(words, env=cluster, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = folder / "metrics.jsonl"
    end = time.monotonic() + 120
    while not log.exists() or log.stat().st_size == 0:
        assert first.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    for pid in (Path(cluster["NOTES"]) / "pids").read_text().split():
        os.kill(int(pid), signal.SIGUSR1)
    assert first.wait(60) == 138
    assert (Path(cluster["NOTES"]) / "scontrol").read_text().startswith("requeue")
    seen = checkpoint.latest(folder / "checkpoints").state["seen"]
    assert 0 < seen < 800
    assert subprocess.run(words, env=cluster, capture_output=True, timeout=280).returncode == 0
    assert checkpoint.latest(folder / "checkpoints").state["seen"] == 800
