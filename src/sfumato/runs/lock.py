"""A run's directory belongs to one training at a time.

RUN/train.lock is locked (flock) while a process trains. The system releases the lock when the process ends, however
it ends, so nobody has to clean up. Other commands, such as `sample` and `ema`, read whole checkpoints and take no lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sfumato.runs.recipe import RecipeError

NAME = "train.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's directory inside the block; it is made if it is missing.

    Arguments:
        folder: The run's directory.

    Raises:
        RecipeError: If another process trains in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = _taken(folder / NAME)
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        (folder / NAME).unlink(missing_ok=True)
        os.close(handle)


def _taken(file: Path) -> int:
    """Return the opened and locked file."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(handle, 200).decode(errors="replace") or "another process"
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(handle)
                raise RecipeError(
                    f"{file.parent} is being trained by {holder}. Wait for it or stop it, or give another --out."
                ) from None
            warnings.warn(f"{file} cannot be locked ({error}); start no second training there.", stacklevel=3)
            return handle
        try:
            if os.path.samestat(os.fstat(handle), file.stat()):
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)  # the one before removed it in between
