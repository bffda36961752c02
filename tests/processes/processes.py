"""Start real processes that meet over gloo, as torchrun would, but forked from one server that has torch loaded."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["sfumato.training.loop", "sfumato.evaluation"])


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
