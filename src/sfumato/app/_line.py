"""The line: requests wait in order, one worker makes pictures, and no request can hold it for ever.

A job is told its place while it waits. It ends when its pictures are made, when its client is gone, after
`Limits.seconds` of computing, or with a message; whatever happens to it, the worker goes on to the next.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from sfumato.app._request import Limits, Request
from sfumato.app._walks import walk
from sfumato.core.denoiser import StoppedError

Tell = Callable[[dict[str, Any]], None]


class FullError(ValueError):
    """No place left in the line."""


class Job:
    """One request in the line.

    Arguments:
        request: What is to be made.
        tell: Receives events, from the worker's thread.
    """

    def __init__(self, request: Request, tell: Tell) -> None:
        self.request, self.tell = request, tell
        self._left = threading.Event()

    def leave(self) -> None:
        """Say that nobody waits for the job any more."""
        self._left.set()

    @property
    def left(self) -> bool:
        """Whether nobody waits for it."""
        return self._left.is_set()


class Line:
    """Jobs that wait, and the thread that works them off.

    Arguments:
        limits: Places in the line, seconds of computing.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._waiting: deque[Job] = deque()
        self._change = threading.Condition()
        threading.Thread(target=self._work, daemon=True, name="playground").start()

    def join(self, request: Request, tell: Tell) -> Job:
        """Add a job at the end of the line.

        Raises:
            FullError: If every place is taken.
        """
        with self._change:
            self._waiting = deque(job for job in self._waiting if not job.left)
            if len(self._waiting) >= self.limits.waiting:
                raise FullError(
                    f"{len(self._waiting)} requests are waiting already, as many as this playground lets wait. "
                    "Try again in a while."
                )
            job = Job(request, tell)
            self._waiting.append(job)
            self._tell_places()
            self._change.notify()
        return job

    def __len__(self) -> int:
        return len(self._waiting)

    def _tell_places(self) -> None:
        for place, job in enumerate(self._waiting):
            job.tell({"event": "waiting", "place": place})

    def _next(self) -> Job:
        with self._change:
            while not self._waiting:
                self._change.wait()
            job = self._waiting.popleft()
            self._tell_places()
            return job

    def _work(self) -> None:
        while True:
            job = self._next()
            if not job.left:
                self._make(job)

    def _make(self, job: Job) -> None:
        end = time.monotonic() + self.limits.seconds

        def stop() -> str | None:
            if job.left:
                return "Nobody waits for these images any more."
            if time.monotonic() > end:
                return (
                    f"Stopped after {self.limits.seconds:g} s of computing, the most this playground gives to one "
                    "request. Ask for fewer images or steps, or start it with a larger --max-seconds."
                )
            return None

        try:
            for event in walk(job.request, stop):
                if job.left:
                    break
                job.tell(event)
        except (StoppedError, ValueError) as error:
            job.tell({"event": "error", "message": str(error)})
        except Exception as error:  # whatever a request does, the next one is served
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            job.tell({"event": "error", "message": f"The images could not be made ({reason})."})
        finally:
            job.tell({"event": "end"})
