"""The help comes at once: no torch, no numpy, little CPU time; and the process's exit codes are the promised ones."""

from __future__ import annotations

import inspect
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sfumato.cli._main import commands

HEAVY = ("torch", "numpy", "matplotlib", "PIL", "safetensors")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["sample", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys, json\nfrom sfumato.cli import main\n"
        f"assert main({words!r}) == 0\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr) == []
    assert done.stdout.strip()


def test_help_takes_less_than_half_a_second_of_cpu() -> None:
    def cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    times = []
    for _ in range(3):
        before = cpu()
        subprocess.run([sys.executable, "-m", "sfumato", "train", "--help"], capture_output=True, check=True)
        times.append(cpu() - before)
    assert min(times) < 0.5, times


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_option_of_every_command_is_documented(name: str, cli) -> None:
    said = cli(name, "--help")
    assert said.code == 0
    parameters = inspect.signature(commands()[name]).parameters.values()
    described = inspect.getdoc(commands()[name]) or ""
    for parameter in parameters:
        assert f"    {parameter.name}: " in described, parameter.name
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            name = parameter.name.replace("_", "-")
            assert f"--{name}" in said.out or f"--no-{name}" in said.out
    assert "(default: )" not in said.out and "(default: None)" not in said.out  # the words say what happens then
    assert all(len(line) <= 110 or line.startswith("    ") for line in said.out.splitlines())


def test_the_list_of_commands_names_each_with_its_first_line(cli) -> None:
    said = cli("--help")
    for name in commands():
        assert f"• {name}" in said.out


def test_process_exit_code_and_streams_of_bad_input(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sfumato", "sample", str(tmp_path / "nowhere")], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "error: " in done.stderr and "is not a run" in done.stderr and "Traceback" not in done.stderr
    assert "error" not in done.stdout


def test_a_process_ends_at_once_and_with_its_code_once_all_is_said_and_done() -> None:
    """What others do at the end is done, what was printed is there, and no object is taken apart."""
    code = (
        "import atexit\nfrom sfumato.cli import _main\n"
        "class Slow:\n    def __del__(self): print('taken apart', flush=True)\n"
        "slow, run = Slow(), _main._run\n"
        "_main._run = lambda words: (atexit.register(print, 'at the end'), run(words))[1]\n_main.program()"
    )
    for words, expected in ((["--version"], 0), (["train"], 2)):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        assert done.returncode == expected and done.stdout.endswith("at the end\n"), done
        assert "taken apart" not in done.stdout and ("sfumato 0" in done.stdout) == (expected == 0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_training_saves_and_leaves_with_its_code(
    number: signal.Signals, code: int, small: list[str], tmp_path: Path, cli
) -> None:
    folder = tmp_path / "run"
    log = folder / "metrics.jsonl"

    def send_when_training() -> None:
        deadline = time.monotonic() + 120
        while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send_when_training)
    before = signal.signal(number, signal.SIG_IGN)  # should the signal come late, the test fails and pytest lives
    try:
        sender.start()
        said = cli("train", "edm-digits", *small, "train.images=1000000000", "--out", folder, "--device", "cpu")
    finally:
        sender.join()
        signal.signal(number, before)
    assert said.code == code
    assert "the same command resumes" in said.out + said.err
    state = json.loads(next(folder.glob("checkpoints/step-*/state.json")).read_text())
    assert 0 < state["seen"] == 64 * state["step"]
