"""Ctrl-C answers within a second, whatever a command is doing, by a real SIGINT to a real process.

The second is one of the process's own computing, so that a busy machine does not decide; what importing torch takes is
not counted, since nothing of ours runs then.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sfumato.runs.override import override
from sfumato.training.loop import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the computing time of a process is read in /proc"),
]
ANSWER = 1.0  # seconds of computing after the signal
WORKING = 6.0  # seconds of computing after torch's library is there: all is imported and the command is at work
ENDED = (130, -signal.SIGINT)  # the latter where Python itself was importing; a shell shows 130 for both
TICKS = os.sysconf("SC_CLK_TCK")
MANY = "100000"
COMMANDS = {
    "train": ("train", "edm-digits", "train.images=1000000000", "--out", "{new}"),
    "train by the clock": ("train", "ddpm-digits", "--minutes", "100", "train.sheet_every=256", "--out", "{new}"),
    "sample": ("sample", "{run}", "--n", MANY),
    "sample to files": ("sample", "{run}", "--n", MANY, "--images", "{new}"),
    "evaluate": ("evaluate", "{run}", "--n", MANY),
    "restore": ("restore", "{run}", "--score", "300", "--samples", "400", "task=inpaint", "mask=half"),
    "likelihood": ("likelihood", "{run}", "--n", "96", "--seeds", "0:100"),
    "study": ("study", "schedule-sizes", "--scale", "tiny", "--out", "{new}"),
    "demo": ("demo", "--out", "{new}", "--minutes", "100"),
    "app": ("app", "{run}", "--port", "0"),
}


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(override(tiny, ["train.images=32"]), tmp_path_factory.mktemp("run") / "run", quiet=True).path


def hearing() -> None:
    """Let a new process hear SIGINT, which a shell's job in the background ignores."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def computing(process: subprocess.Popen[str]) -> float:
    """Return the seconds that a process has computed, with the compilers that it waited for, as `wait4` counts them."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_answers_within_a_second(name: str, run: Path, tmp_path: Path) -> None:
    words = [word.format(run=run, new=tmp_path / "new") for word in COMMANDS[name]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with open(tmp_path / "said", "w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "sfumato", *words, *([] if name == "study" else ["--device", "cpu"])],
            cwd=tmp_path, env=environment, stdout=said, stderr=subprocess.STDOUT, text=True, preexec_fn=hearing,
        )  # fmt: skip
        try:
            end, ready = time.monotonic() + 500, 0.0
            while not ready or (computing(process) < ready + WORKING and name != "app"):
                assert process.poll() is None and time.monotonic() < end, Path(said.name).read_text()
                if not ready and "libtorch_cpu" in Path(f"/proc/{process.pid}/maps").read_text():
                    text = Path(said.name).read_text()
                    ready = computing(process) if name != "app" or "http://" in text else 0.0
                time.sleep(0.02)
            before, began = computing(process), time.monotonic()
            process.send_signal(signal.SIGINT)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = code = os.waitstatus_to_exitcode(status)
        finally:
            process.kill()
        told = Path(said.name).read_text()
    took = used.ru_utime + used.ru_stime - before
    print(f"{name}: {took:.2f} s of computing, {time.monotonic() - began:.2f} s in all")
    assert code in ENDED and "Traceback" not in told, (code, told[-2000:])
    assert re.search("Interrupted|the same command resumes", told) and took < ANSWER, (took, told[-2000:])
