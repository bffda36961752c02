"""Fetch official files: resumable, checked, and whole or not at all; and where files of this machine are kept.

A file is written as ``NAME.part`` and renamed to NAME only after its size and checksum are right, so a file under its
own name is never half there. What is already in ``NAME.part`` is not asked for again (HTTP Range); a server that
ignores the range starts over. One process downloads while others wait for it, so that every rank of a distributed run
may ask. Files found locally are verified too: a flipped bit in a training set would otherwise be silent.

Data sets and the weights of feature extractors come through here. What a caller says of a failure is its own: it
gives the remedy, and the error its callers know.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlparse

from sfumato.progress import Bar, bar_of

ATTEMPTS = 3
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 18


def cache_folder(kind: str = "") -> Path:
    """Return the folder of what can be made or fetched again, ``$XDG_CACHE_HOME/sfumato``; nothing is created.

    Arguments:
        kind: Name of a sub-folder, such as "features"; the whole folder if empty.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sfumato" / kind


def data_root(root: str | Path | None = None) -> Path:
    """Find the folder that holds one sub-folder a dataset; nothing is created.

    Arguments:
        root: A path that goes before SFUMATO_DATA and the cache; None for those.
    """
    given = root or os.environ.get("SFUMATO_DATA")
    return Path(given).expanduser() if given else cache_folder("data")


def brought(path: Path) -> Path:
    """Return where a file lies that a person brings, or the path as it is if it is nowhere.

    A name without a folder that is not here is looked for in the cache, in the data root and in the root's sub-folders.

    Arguments:
        path: As it was given.
    """
    if path.exists() or path.name != str(path):
        return path
    root = data_root()
    below = sorted(folder for folder in root.iterdir() if folder.is_dir()) if root.is_dir() else []
    return next((there for each in (cache_folder(), root, *below) if (there := each / path).is_file()), path)


class DownloadError(ValueError):
    """Say that a file could not be fetched or is not what its publisher says, and what to do about it."""


@dataclass(frozen=True)
class Remote:
    """Name an official file: where it is, how long, and its checksum.

    Arguments:
        url: http or https address; the last part of its path is the file's name.
        size: Length of the file in bytes.
        md5: Hex digest as its publisher gives it, or "".
        sha256: Hex digest, or "". At least one of the two is needed.

    Raises:
        ValueError: If the scheme is another one, or no checksum is given.
    """

    url: str
    size: int
    md5: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        if urlparse(self.url).scheme not in ("http", "https"):
            raise ValueError(f"Downloads go over http or https; got {self.url!r}.")
        if not (self.md5 or self.sha256):
            raise ValueError(f"A download needs a checksum; {self.url} has neither md5 nor sha256.")

    @property
    def name(self) -> str:
        """The file's own name."""
        return Path(urlparse(self.url).path).name


def digest(path: Path, algorithm: str) -> str:
    """Return the hex digest of a file by "md5" or "sha256"."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def verify(path: Path, remote: Remote, error: type[ValueError] = DownloadError) -> None:
    """Check a local file against what its publisher says.

    Arguments:
        path: The local file to check.
        remote: Size and checksums that the file should have.
        error: The kind of error to raise.

    Raises:
        ValueError: Of that kind, if its size or a checksum differs; the message names file, expectation, finding and
            remedy.
    """
    remedy = f"Delete it and run again to download it from {remote.url}."
    if (size := path.stat().st_size) != remote.size:
        raise error(f"{path} is corrupt or another file: expected size {remote.size}, found {size}. {remedy}")
    for algorithm, expected in (("sha256", remote.sha256), ("md5", remote.md5)):
        if expected:
            check_digest(path, algorithm, expected, remedy, error)


def check_digest(path: Path, algorithm: str, expected: str, remedy: str, error: type[ValueError]) -> None:
    """Check a file's checksum.

    Arguments:
        path: The local file to check.
        algorithm: Name of the checksum, "md5" or "sha256".
        expected: The checksum in hexadecimal.
        remedy: Sentence that says what to do if the file is another one.
        error: The kind of error to raise.

    Raises:
        ValueError: Of that kind, if the checksum differs.
    """
    if (found := digest(path, algorithm)) != expected:
        raise error(f"{path} is corrupt or another file: expected {algorithm} {expected}, found {found}. {remedy}")


_allowed: ContextVar[bool] = ContextVar("downloads", default=True)


@contextlib.contextmanager
def no_downloads() -> Iterator[None]:
    """Refuse to download what is missing, in this thread, while the block runs."""
    token = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(token)


def fetch(
    remote: Remote, folder: Path, *, remedy: str, error: type[ValueError] = DownloadError, progress: bool = True
) -> Path:
    """Return a verified local copy of a file, downloading it if it is missing.

    Arguments:
        remote: Name, address, size and checksums of the file.
        folder: Folder of the local copy; made if needed.
        remedy: Sentence that says what to do if the file cannot be fetched.
        error: The kind of error to raise.
        progress: Whether to show a bar on a terminal.

    Returns:
        The path ``folder / remote.name``.

    Raises:
        ValueError: Of that kind, if a local copy is corrupt, the folder cannot be written, the server cannot be
            reached or sends something else. After an interruption the part is kept and the next call resumes; a
            whole file with a wrong checksum is removed.
    """
    path = folder / remote.name
    if not path.exists() and not _allowed.get():
        raise error(f"{remote.name} is not in {folder}, and nothing is downloaded here. {remedy}")
    if not path.exists():
        part = folder / f"{remote.name}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(part):
                if not path.exists():
                    with part.open("ab") as file:
                        _download(remote, file, progress)
                    _keep_if_right(remote, part, path, error)
        except OSError as reason:
            raise error(
                f"{remote.name} is not in {folder} and could not be fetched from {remote.url}: {reason}. {remedy}"
            ) from reason
        finally:
            _remove_if_empty(part)
    verify(path, remote, error)
    return path


def _keep_if_right(remote: Remote, part: Path, path: Path, error: type[ValueError]) -> None:
    try:
        verify(part, remote, error)
    except error as found:
        part.unlink()
        raise error(f"{remote.url} sent another file than expected, which was removed: {found}") from found
    os.replace(part, path)


def _remove_if_empty(part: Path) -> None:
    with contextlib.suppress(OSError):
        if part.stat().st_size == 0:
            part.unlink()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of a part file; other processes that want it wait here."""
    try:
        import fcntl
    except ImportError:  # no advisory locks on this platform: the checksum still guards
        yield
        return
    while True:
        with path.open("ab") as part:
            fcntl.flock(part, fcntl.LOCK_EX)
            if _is_still(part, path) or path.with_suffix("").exists():  # renamed while we waited
                yield
                return


def _is_still(part: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(part.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _download(remote: Remote, part: BinaryIO, progress: bool) -> None:
    print(f"Downloading {remote.url} ({remote.size / 1e6:.1f} MB) to {Path(part.name).parent}", file=sys.stderr)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with bar_of(remote.size, "B", remote.name, quiet=not progress, unit_scale=True) as bar:
                _append(remote, part, bar)
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason: object = error
        except urllib.error.HTTPError as error:
            raise OSError(f"the server answered {error.code} {error.reason}") from error
        else:
            reason = "the connection ended early"
        if part.tell() == remote.size:
            return
        if attempt == ATTEMPTS:
            raise OSError(
                f"{reason} ({part.tell():,} of {remote.size:,} bytes are kept; run again to go on from there)"
            )


def _append(remote: Remote, part: BinaryIO, bar: Bar) -> None:
    part.seek(0, os.SEEK_END)
    if part.tell() > remote.size:
        part.truncate(0)
    start = part.tell()
    if start == remote.size:
        return
    request = urllib.request.Request(remote.url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if start and not (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
            part.truncate(0)
            start = 0
        bar.update(start)
        while block := response.read(CHUNK):
            if part.tell() + len(block) > remote.size:
                part.truncate(0)
                raise OSError(f"the server sent more than the expected {remote.size:,} bytes")
            part.write(block)
            bar.update(len(block))
    part.flush()
