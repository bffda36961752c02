"""Start real processes, forked from one server that has torch loaded: alone, or meeting over gloo as under torchrun.

Loading torch and its compiler takes seconds of computing, and a process that a test kills needs them no less.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

CONTEXT = multiprocessing.get_context("forkserver")
# an optimiser and every pass on the meta device ask for torch's compiler
CONTEXT.set_forkserver_preload(["sfumato.cli", "sfumato.training.loop", "sfumato.evaluation", "torch._dynamo"])


class Alone:
    """A process of its own that calls ``work(*arguments)``, with the methods of `subprocess.Popen` that tests use.

    Arguments:
        work: A function of a module's top; what it returns is the exit code.
        environment: Variables of the process beside those of this one.
    """

    def __init__(self, work: Callable[..., int | None], *arguments: Any, environment: Mapping[str, str] = {}) -> None:
        self._said = tempfile.NamedTemporaryFile("r")  # noqa: SIM115 it goes when this object does
        told = {**os.environ, **environment}, os.getcwd(), self._said.name
        self._process = CONTEXT.Process(target=_alone, args=(work, arguments, *told))
        self._process.start()

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def wait(self, timeout: float = 180) -> int:
        """Return the exit code; a process that takes longer is killed."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"the process has not ended within {timeout} s: {self.said()}")
        return self._process.exitcode

    def said(self) -> str:
        """Return what the process has written to both streams."""
        return Path(self._said.name).read_text()


def command_line(words: list[str]) -> int:
    """Run a command line."""
    from sfumato.cli import main

    return main(words)


def _alone(
    work: Callable[..., int | None], arguments: tuple[Any, ...], environment: dict[str, str], folder: str, said: str
) -> None:
    with open(said, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    torch.set_num_threads(1)
    sys.exit(work(*arguments))


def start(work: Callable[..., None], world: int, *arguments: Any) -> list[Any]:
    """Start `world` processes that call ``work(*arguments)``, a function of a module's top; return them by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [CONTEXT.Process(target=_enter, args=(work, r, world, port, arguments)) for r in range(world)]
    for process in processes:
        process.start()
    return processes


def codes(processes: list[Any], seconds: float = 60) -> list[int | None]:
    """Wait until all have ended and return their exit codes; None for one that is still there, which is killed."""
    end = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    found = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return found


def until(condition: Callable[[], bool], processes: list[Any], seconds: float = 60) -> None:
    """Wait until a condition holds, failing if a process ends first."""
    end = time.monotonic() + seconds
    while not condition():
        assert all(process.is_alive() for process in processes), "a process has ended"
        assert time.monotonic() < end, "the processes made no progress"
        time.sleep(0.01)


def _enter(work: Callable[..., None], rank: int, world: int, port: int, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    work(*arguments)
