"""Files are written whole or not at all: beside their place first, then moved there in one step.

On a full disk, or where the process is killed, what stood there before stays.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sfumato.core.reading import KINDS, FileRefusedError


@contextmanager
def naming(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Name a file in the errors of the system that name none, as those of a full disk do.

    Arguments:
        path: The file that is written inside the block.
        partial: A file that stands for it while it is written.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, partial, str(partial)):
            error.filename = str(path)
        raise


@contextmanager
def replacing(path: Path, *, lasting: bool = False) -> Iterator[Path]:
    """Give the path of a file to write, which takes another's place when the block ends; after an error it is removed.

    Arguments:
        path: The place; its folder is made.
        lasting: Whether it must be on the disk before this returns, as what cannot be made again must.

    Raises:
        FileRefusedError: If a device or a pipe is there, whose place a file would take for good.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_place(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with naming(path, partial):  # a person named the place, not the file beside it
            yield partial
            if lasting:
                flush(partial)
            partial.replace(path)
    finally:
        with suppress(OSError):  # where nothing can be written, nothing can be removed, and the first error counts
            partial.unlink(missing_ok=True)
    if lasting:
        flush(path.parent)


def check_writable(path: Path, remedy: str = "Name another path.", *, folder: bool = False) -> Path:
    """Return a path that a file can take, which long work asks before it begins; nothing is left behind.

    Arguments:
        path: The file, or the folder of files; it need not be there: of its folders the first that is there is tried.
        remedy: What to do otherwise.
        folder: Whether it is a folder.

    Raises:
        FileRefusedError: If no file can be made there.
    """
    place = path if folder else path.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        if not folder:
            _check_place(path)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"\0")
    except OSError as error:
        raise FileRefusedError(f"{path} cannot be written: {error.strerror or error}. {remedy}") from error
    return path


def _check_place(path: Path) -> None:
    with suppress(FileNotFoundError):
        found = stat.S_IFMT(path.lstat().st_mode)  # of a link, whose place may be taken
        if found not in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR):
            raise FileRefusedError(
                f"{path} is {KINDS.get(found, 'no file')}, which no file replaces. Name another path."
            )


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file that lasts and return its path."""
    with replacing(path, lasting=True) as partial:
        partial.write_bytes(content)
    return path


def replace_text(path: Path, text: str) -> None:
    """Write a text file that lasts."""
    write_whole(path, text.encode())


def replace_json(path: Path, value: Any, *, else_say: Callable[[], str] | None = None) -> None:
    """Write a JSON file that lasts.

    Arguments:
        path: Where the file goes; one that is there is replaced.
        value: A tree of plain values, as JSON has them.
        else_say: Called if it cannot be written; what the error then says beside its message, so that long work is not
            lost.
    """
    try:
        replace_text(path, json.dumps(value, indent=1))
    except OSError as error:
        if else_say is not None:
            error.add_note(else_say())
        raise


def flush(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
