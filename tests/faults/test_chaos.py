"""Chaos: a training is killed, its disk filled, its numbers and files poisoned, and it ends as if nothing had been.

Each event is drawn from a seed, and so is the moment: the n-th call, from the start of a process, of what changes a
file or takes a step. A process is forked for each event, so a kill is a real one, inside a save, a rename or a step.
"""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch._dynamo  # an optimiser asks for it: loaded once here, not by every process that is forked
from tests.faults.test_killed_again_and_again import log_of
from tests.faults.test_state_on_disk import DAMAGE, equal, no_average, no_moments, no_weights, poison

from sfumato.runs import checkpoint
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.training.loop import train
from sfumato.training.trainer import Trainer

POINTS = ((os, "fsync"), (os, "rename"), (os, "replace"), (checkpoint, "save_file"), (Trainer, "advance"))


def kill(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def ask_to_stop(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def fill(*_: object) -> None:
    """The disk is full from here on."""

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    os.fsync = full  # type: ignore[assignment]


def spoil(what: Callable[[Trainer], None]) -> Callable[..., None]:
    """Return what breaks a trainer's numbers after every step from here on."""

    def begin(*_: object) -> None:
        advance = Trainer.advance

        def broken(self: Trainer, spent: float) -> bool:
            good = advance(self, spent)
            what(self)
            return good

        Trainer.advance = broken  # type: ignore[method-assign]

    return begin


EVENTS = (kill, kill, ask_to_stop, fill, spoil(no_weights), spoil(no_average), spoil(no_moments))


def child(recipe: Recipe, folder: Path, event: Callable[..., None] | None, after: int) -> None:
    """Train, with an event at the n-th call of what changes a file or takes a step."""
    left = [after]

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def called(*arguments: object) -> object:
            left[0] -= 1
            if left[0] == 0 and event is not None:
                event()
            return function(*arguments)

        return called

    for owner, name in POINTS:
        setattr(owner, name, counted(getattr(owner, name)))
    sys.stderr = io.StringIO()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        train(recipe, folder, quiet=True, device="cpu")
    except SystemExit as stop:
        os._exit(int(stop.code or 0))
    except Exception as error:  # Diverged, OSError: seen by the test as a code
        os._exit(4 if type(error).__name__ == "Diverged" else 2 if isinstance(error, OSError | ValueError) else 1)
    os._exit(0)


def run_once(recipe: Recipe, folder: Path, event: Callable[..., None] | None = None, after: int = 0) -> int:
    """Train in a process of its own, and return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=child, args=(recipe, folder, event, after))
    process.start()
    process.join(1200)  # others may share the machine
    code = process.exitcode
    assert code is not None, "the process hangs"
    return code


def damage(folder: Path, chance: random.Random) -> None:
    """Damage the newest of at least two checkpoints on disk: a NaN in it, or its files."""
    found = checkpoint.steps(folder / "checkpoints")
    if len(found) < 2:
        return
    newest = folder / "checkpoints" / f"step-{found[-1]}"
    if chance.random() < 0.5:
        poison(newest, chance.choice(("network", "ema-power-0.10", "optimizer-0")))
    else:
        DAMAGE[chance.choice(list(DAMAGE))](newest)


def chaos(recipe: Recipe, folder: Path, events: int, seed: int, calls: int) -> list[int]:
    """Train through events and to the end; return the exit codes of the processes."""
    chance, codes = random.Random(seed), []
    for _ in range(events):
        if chance.random() < 0.25:
            damage(folder, chance)
        codes.append(run_once(recipe, folder, chance.choice(EVENTS), chance.randint(1, calls)))
        assert codes[-1] in (-signal.SIGKILL, 128 + signal.SIGTERM, 0, 2, 4), codes
    codes.append(run_once(recipe, folder))
    return codes


def check(recipe: Recipe, tmp_path: Path, events: int, seed: int, calls: int) -> list[int]:
    assert run_once(recipe, tmp_path / "straight") == 0
    codes = chaos(recipe, tmp_path / "chaos", events, seed, calls)
    assert codes[-1] == 0
    assert equal(tmp_path / "straight", tmp_path / "chaos")
    assert log_of(tmp_path / "straight") == log_of(tmp_path / "chaos")
    left = {p.name for p in (tmp_path / "chaos").iterdir()}
    assert left == {p.name for p in (tmp_path / "straight").iterdir()}
    return codes


@pytest.fixture(scope="module")
def saving(tiny: Recipe) -> Recipe:
    """Saving after every step; numbers that stay bad end a process soon."""
    return override(tiny, ["train.rate=constant", "train.save_every=0.0", "train.bad_in_a_row=2"])


def test_six_events_leave_no_trace(saving: Recipe, tmp_path: Path) -> None:
    codes = check(override(saving, ["train.images=192"]), tmp_path, events=6, seed=1, calls=30)
    assert len(set(codes)) >= 3, codes


@pytest.mark.slow
def test_fifty_events_leave_no_trace(saving: Recipe, tmp_path: Path) -> None:
    codes = check(override(saving, ["train.images=3200"]), tmp_path, events=50, seed=0, calls=90)
    assert {-signal.SIGKILL, 128 + signal.SIGTERM, 2, 4} <= set(codes), codes
