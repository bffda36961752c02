"""The heartbeat of a run's processes: a thread that notices when another has died.

A rank waiting in a GPU kernel for a dead one does not notice that it is gone, and neither does its Python code, which
waits for the kernel. So each rank counts upwards in the store where the ranks met, every few seconds, and watches: the
first rank all others, the others the first. A count that stands still for `SILENCE` seconds means a process that is
killed, or a machine or network that is down, and the watcher ends its own process at once. What ends the first rank
ends the others in turn, so a run never hangs for longer than twice that. A rank that is done says so.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

from torch.distributed import PrefixStore, TCPStore

PERIOD, SILENCE = 2.0, 25.0  # seconds
LEFT = 1 << 40  # a count beyond any other: this rank has ended in peace
LOST_EXIT = 5


class Heartbeat(threading.Thread):
    """Beat for this rank and watch others.

    Arguments:
        rank: Number of this process, in [0, world).
        world: Number of processes.
    """

    def __init__(self, rank: int, world: int) -> None:
        super().__init__(name="heartbeat", daemon=True)
        # its own connection, since whoever waits for something in a store keeps the connection to himself
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self.store = PrefixStore(f"sfumato/heartbeat/{attempt}", TCPStore(host, port, wait_for_workers=False))
        self.rank = rank
        self.watched = range(1, world) if rank == 0 else range(1)
        self.ended = threading.Event()

    def run(self) -> None:
        """Beat and watch until stopped."""
        counts, since = dict.fromkeys(self.watched, -1), dict.fromkeys(self.watched, time.monotonic())
        while not self.ended.wait(PERIOD):
            try:
                self._beat(1)
                found = {other: self.store.add(str(other), 0) for other in self.watched if counts[other] < LEFT}
            except RuntimeError as error:  # the store's process is gone
                if not self.ended.is_set():
                    self._end(f"the store where the processes met is gone ({str(error).splitlines()[0]})")
                return
            now = time.monotonic()
            for other, count in found.items():
                if count != counts[other]:
                    counts[other], since[other] = count, now
                elif now - since[other] > SILENCE:
                    self._end(f"process {other} has not been heard of for {SILENCE:.0f} s")

    def stop(self) -> None:
        """Say that this rank ends in peace, and stop watching."""
        self.ended.set()
        with contextlib.suppress(RuntimeError):  # everyone else has left already
            self._beat(LEFT)

    def _beat(self, by: int) -> None:
        self.store.add(str(self.rank), by)

    def _end(self, reason: str) -> None:
        print(
            f"error: process {self.rank} ends: {reason}. The same command goes on from what was saved.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(LOST_EXIT)
