"""Guards of a long run: signals that only set a flag, and the error of a training that is not finite.

SIGINT, SIGTERM and SIGUSR1 ask the loop to finish its step, save and leave with 128 + the signal's number (143 for
SIGTERM); a second signal leaves at once. If too many steps are not finite (`training.steps.FiniteWatch`) the run goes
back to its last good checkpoint once; if that does not help it stops with exit code 4 and names the step and its
samples.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class Diverged(RuntimeError):
    """Training produced non-finite steps that skipping and one rollback did not cure."""


class Signals:
    """Catch termination signals inside a ``with`` block; `received` is the first one's number, or None.

    Arguments:
        quiet: Whether a signal is not answered in words. The words come at once, whatever the step takes.
    """

    def __init__(self, quiet: bool = True) -> None:
        self.quiet = quiet
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
        if not self.quiet:
            os.write(
                2, f"\nSignal {number}: saving after this step. Once more leaves at once, without saving.\n".encode()
            )

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
