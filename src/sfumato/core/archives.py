"""Zip archives and the arrays in them, read within bounds: how much is unpacked is known before it is.

An archive's directory is counted before it is built. An array's header says its kind and shape; both are checked, with
the bytes that they mean, before its values are unpacked. Arrays of Python objects are never read.
"""

from __future__ import annotations

import math
import os
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from sfumato.core.reading import Error, FileRefusedError

DIRECTORY = 192 << 20
"""The most bytes of an archive's directory."""
FILES = 1_500_000
"""The most files of an archive (ImageNet has 1,281,167)."""
ARRAYS = 10_000
"""The most arrays of an .npz file."""
RATIO = 100
"""An array of images or features shrinks by less than this; one that claims more is not unpacked."""
SMALL = 12 << 20
"""Arrays up to this many bytes may shrink by any ratio: 12 MiB (labels, images of one colour)."""
HEADER = 1 << 16

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError, KeyError,
          SyntaxError, tokenize.TokenError, struct.error, MemoryError)  # fmt: skip
"""What reading a damaged archive or array raises."""


@contextmanager
def opened(
    path: Path | str, kind: str = "zip archive", error: Error = FileRefusedError, files: int = FILES
) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive whose directory is not too large; damage met inside is raised as the given error.

    Arguments:
        path: Path of a regular file.
        kind: What it should be, for messages.
        error: The kind of error to raise.
        files: The most files that it may hold.

    Raises:
        ValueError: Of that kind, if it is no archive, holds more files, or is damaged.
        FileNotFoundError: If there is none.
    """
    archive = open_zip(path, kind, error, files)
    with archive, damage(path, kind, error):
        yield archive


def open_zip(
    path: Path | str, kind: str = "zip archive", error: Error = FileRefusedError, files: int = FILES
) -> zipfile.ZipFile:
    """Return an open zip archive; arguments and errors as for `opened`."""
    with damage(path, kind, error):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise error(f"{path} must be a file.")
        with open(path, "rb") as file:
            count = _count(file, os.stat(path).st_size)
        if count > files:
            raise error(f"{path} is refused: its directory holds {count:,} files, and at most {files:,} are read.")
        return zipfile.ZipFile(path)


@contextmanager
def damage(path: Path | str, kind: str, error: Error) -> Iterator[None]:
    """Raise what reading a damaged archive or array raises as an error that names the file.

    Arguments:
        path: Path of the file.
        kind: What it should be.
        error: The kind of error to raise.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except DAMAGE as reason:
        if isinstance(reason, ValueError) and (type(reason) is error or isinstance(reason, FileRefusedError)):
            raise
        raise error(f"{path} is not a readable {kind}: {str(reason)[:200]}.") from None


def _count(file: IO[bytes], size: int) -> int:
    """Return how many files an archive's directory holds, counted in its bytes; 0 if there is none to be found."""
    tail = min(size, (1 << 16) + 22)
    file.seek(size - tail)
    end = file.read(tail)
    at = end.rfind(b"PK\5\6")
    if at < 0 or len(end) < at + 22:
        return 0
    long, place = struct.unpack_from("<I", end, at + 12)[0], size - tail + at
    if end[max(0, at - 20) : at].startswith(b"PK\6\7") and at >= 76 and end[at - 76 : at - 72] == b"PK\6\6":
        long, place = struct.unpack_from("<Q", end, at - 76 + 40)[0], place - 76
    if long > min(place, DIRECTORY):
        raise ValueError(f"its directory claims {long:,} bytes")
    file.seek(place - long)
    return file.read(long).count(b"PK\1\2")


def header_of(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Return the shape and the kind that an array in a file declares, without reading it.

    Raises:
        ValueError: If the header is damaged.
    """
    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    try:
        shape, _, kind = read(file)
    except (SyntaxError, tokenize.TokenError, RecursionError, MemoryError, KeyError, AttributeError) as reason:
        raise ValueError(f"a damaged header ({type(reason).__name__})") from None
    if not all(type(n) is int and 0 <= n < 1 << 48 for n in shape):
        raise ValueError(f"an array of the shape {shape!r:.60}")
    return shape, kind


def declared(
    path: object, name: str, shape: tuple[int, ...], kind: np.dtype, available: int, most: int, error: Error
) -> int:
    """Return the bytes of an array's values, refusing more than its file has or than are read.

    Arguments:
        path: The file, for the message.
        name: Name of the array.
        shape: As its header says.
        kind: Type of its values.
        available: Bytes that the file has.
        most: The most that are read.
        error: The kind of error to raise.
    """
    size = math.prod(shape) * kind.itemsize
    if size > most or size > available:
        raise error(
            f"{path} is refused: {name} declares shape {shape}, {size:,} bytes, where the file has {available:,} and "
            f"at most {most:,} are read."
        )
    return size


def read_member(archive: zipfile.ZipFile, name: str, most: int, error: Error = FileRefusedError) -> np.ndarray:
    """Unpack one array of an archive.

    Arguments:
        archive: As `opened` opens it.
        name: Name of its file, with .npy.
        most: The most bytes of its values.
        error: The kind of error to raise.

    Raises:
        ValueError: Of that kind, if it holds objects, or claims more than it has, than is read, or than is likely.
    """
    entry, path = archive.getinfo(name), archive.filename
    with archive.open(entry) as file:
        shape, kind = header_of(file)
    if kind.hasobject:
        raise error(f"{path} is refused: {name} holds objects of Python, which are not read.")
    size = declared(path, name, shape, kind, entry.file_size, most, error)
    if entry.file_size > max(SMALL, RATIO * entry.compress_size) or entry.file_size > size + HEADER:
        raise error(
            f"{path} is refused: {name} unpacks from {entry.compress_size:,} to {entry.file_size:,} bytes, more than "
            f"{RATIO} times, or more than its shape {shape} needs. It was not unpacked."
        )
    with archive.open(entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def read_npz(
    path: Path | str, names: tuple[str, ...] | None = None, *, most: int, error: Error = FileRefusedError
) -> dict[str, np.ndarray]:
    """Read arrays of an .npz file.

    Arguments:
        path: Path of the file.
        names: Those wanted; names that it lacks are left out. None for all.
        most: The most bytes of all of them.
        error: The kind of error to raise.

    Raises:
        ValueError: Of that kind, if it is damaged, or an array holds objects or is too large.
        FileNotFoundError: If there is no such file.
    """
    found: dict[str, np.ndarray] = {}
    with opened(path, ".npz file", error, ARRAYS) as archive:
        held = set(archive.namelist())
        for name in sorted(held) if names is None else [f"{name}.npy" for name in names]:
            if name in held:
                found[name.removesuffix(".npy")] = array = read_member(archive, name, most, error)
                most -= array.nbytes
    return found
