"""Guards of a long run: signals that only set a flag, and steps that are not finite.

SIGINT, SIGTERM and SIGUSR1 ask the loop to finish its step, save and leave with 128 + the signal's number (143 for
SIGTERM); a second signal leaves at once. A step whose loss or gradient norm is NaN or infinite is skipped: neither
weights, averages nor the optimiser see it. Too many bad steps in a row, or 1% of the last 1000, and the run goes back
to its last good checkpoint once; if that does not help it stops with exit code 4 and names the step and its samples.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from types import FrameType, TracebackType
from typing import Self

NOT_FINITE_EXIT = 4


class Diverged(RuntimeError):
    """Training produced non-finite steps that skipping and one rollback did not cure."""


class Signals:
    """Catch termination signals inside a ``with`` block; `received` is the first one's number, or None."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


class FiniteWatch:
    """Count non-finite steps and say when to give up.

    Arguments:
        in_a_row: More consecutive bad steps than this give up.
        window: So does a bad share above 1% of the last `window` steps.

    Attributes:
        total: Bad steps.
        run: Bad steps in a row, up to now.
        where: The last bad step and its samples, in words.
    """

    def __init__(self, in_a_row: int = 20, window: int = 1000) -> None:
        self.in_a_row, self.total, self.run, self.where = in_a_row, 0, 0, ""
        self.recent: deque[bool] = deque(maxlen=window)

    def record(self, good: bool, step: int, samples: range) -> None:
        """Note one step.

        Arguments:
            good: Whether it was finite.
            step: Its number.
            samples: Positions it saw.
        """
        if not good:
            self.where = f"step {step}, samples {samples.start} to {samples.stop - 1}"
        self.recent.append(not good)
        self.run = 0 if good else self.run + 1
        self.total += not good

    @property
    def hopeless(self) -> bool:
        """Whether the limits are exceeded."""
        full = len(self.recent) == self.recent.maxlen
        return self.run > self.in_a_row or (full and sum(self.recent) > 0.01 * len(self.recent))

    def forgive(self) -> None:
        """Forget the recent past (after a rollback); the total stays."""
        self.run = 0
        self.recent.clear()
