"""List and read the image files of a folder or a zip archive, safely and in one order.

Both kinds give sorted names relative to their top, with "/" between parts, and the bytes of each. So a folder and a
zip of it are the same dataset, index for index. The contents of an archive are read in memory and never extracted,
and an archive whose directory is ambiguous or points outside itself is refused as a whole: absolute names, "..",
backslashes, links, encryption, two entries of one name. Labels come from ``dataset.json`` where there is one
(``{"labels": [[name, class], ...]}``, the layout of StyleGAN and EDM), otherwise from the first folder of the name.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from sfumato.core.archives import open_zip
from sfumato.core.reading import parse_json, read_bytes
from sfumato.data.dataset import DataError
from sfumato.data.decoding import SUFFIXES

LABEL_FILE = "dataset.json"
MAX_BYTES = 1 << 28
"""The most bytes one file may have: 256 MiB."""
LABEL_ENTRIES = 5_000_000
"""The most entries of a label file, three an image (ImageNet needs 3.9 million)."""


Labels = tuple[dict[str, int], tuple[str, ...]]
"""The class number of every file, and the names of the classes in that order."""


class Listing(Protocol):
    """Name the image files of a source and read them."""

    path: Path
    names: tuple[str, ...]

    def read(self, name: str) -> bytes:
        """Return the bytes of one file of the source; DataError if it is larger than MAX_BYTES or damaged."""
        ...

    def label_file(self) -> Any:
        """Return the parsed ``dataset.json``, or None if there is none."""
        ...

    def files(self) -> list[Path]:
        """Return the files on disk that hold all this."""
        ...


def stamp(listing: Listing) -> str:
    """Return a hash that changes when a source does: its names, and of each of its files size, times and inode.

    The time of change cannot be set back as that of modification can, so content replaced by as many bytes is noticed.
    """
    states = [(file, file.stat()) for file in listing.files() if file.exists()]
    facts = [(str(file), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for file, s in states]
    text = json.dumps([str(listing.path.resolve()), listing.names, facts])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def open_listing(path: str | Path) -> Listing:
    """List a folder or a .zip file.

    Raises:
        DataError: If there is no such folder or archive, it holds no images, or an archive is unsafe.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        listing: Listing = FolderListing(path)
    elif path.is_file():
        listing = ZipListing(path)
    else:
        raise DataError(f"There is no folder or .zip file {path}.")
    if not listing.names:
        raise DataError(f"{path} holds no images ({', '.join(SUFFIXES)}).")
    return listing


class FolderListing:
    """List a folder with all its sub-folders; hidden files and other suffixes are passed over.

    Arguments:
        path: An existing folder. Links to folders are followed, each real folder once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._has_labels = (path / LABEL_FILE).is_file()
        found, seen = [], set()
        for top, folders, files in os.walk(path, followlinks=True):
            real = os.path.realpath(top)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            here = Path(top).relative_to(path)
            found += [(here / f).as_posix() for f in files if _is_image(f)]
        for name in found:
            if (shown := os.fsencode(name).decode(errors="backslashreplace")) != name:
                raise DataError(f"{path} holds a file whose name is not UTF-8: {shown}. Rename it.")
        self.names = tuple(sorted(found))

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return read_bytes(self.path / name, MAX_BYTES, DataError)

    def label_file(self) -> Any:
        """Return the parsed label file, or None if there is none."""
        return _parse(self.read(LABEL_FILE), self.path) if self._has_labels else None

    def files(self) -> list[Path]:
        """Return every image, and the label file."""
        return [self.path / name for name in (*self.names, LABEL_FILE)]


class ZipListing:
    """List a zip archive after checking that every name in it is plain.

    Arguments:
        path: Path of an existing file.

    Raises:
        DataError: If it is no zip archive or unsafe; the message names the entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive = open_zip(path, error=DataError)
        entries = self._archive.infolist()
        seen: set[str] = set()
        for entry in entries:
            reason = _unsafe(entry) or ("named twice" if entry.filename in seen else "")
            if reason:
                raise DataError(f"{path} is refused: entry {entry.filename!r} is {reason}.")
            seen.add(entry.filename)
        self._has_labels = LABEL_FILE in seen
        self.names = tuple(sorted(name for name in seen if _is_image(PurePosixPath(name).name)))

    def read(self, name: str) -> bytes:
        """Return the content of an entry, checked against its CRC."""
        entry = self._archive.getinfo(name)
        if entry.file_size > MAX_BYTES:
            raise DataError(f"{entry.file_size:,} bytes, more than the {MAX_BYTES:,} allowed")
        try:
            with self._archive.open(entry) as file:
                content = file.read(entry.file_size)
                file.read(1)  # at the end of an entry its CRC is compared
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
            raise DamagedArchiveError(f"{self.path} is refused: entry {name!r} is damaged ({error}).") from error
        if len(content) != entry.file_size:
            raise DamagedArchiveError(f"{self.path} is refused: entry {name!r} is cut short.")
        return content

    def label_file(self) -> Any:
        """Return the parsed label file, or None if there is none."""
        return _parse(self.read(LABEL_FILE), self.path) if self._has_labels else None

    def files(self) -> list[Path]:
        """Return the archive."""
        return [self.path]


class DamagedArchiveError(DataError):
    """An archive whose bytes are not those it was made from: nothing in it can be trusted."""


def labels_of(listing: Listing) -> Labels | None:
    """Find the labels of a source.

    Returns:
        A class number for each name and the class names, or None if the source is unlabelled: all images at its top,
        or a ``dataset.json`` without labels.

    Raises:
        DataError: If some images have a label and others none, or ``dataset.json`` is malformed.
    """
    stored = listing.label_file()
    if stored is not None:
        return _stored_labels(stored, listing)
    first = {name: name.split("/")[0] if "/" in name else None for name in listing.names}
    classes = sorted({folder for folder in first.values() if folder is not None})
    if not classes:
        return None
    loose = [name for name, folder in first.items() if folder is None]
    if loose:
        raise DataError(
            f"{listing.path} holds images at its top ({loose[0]} and {len(loose) - 1} more) beside sub-folders, so "
            "their class is unknown. Move them into a sub-folder, or pass labels=False."
        )
    number = {folder: k for k, folder in enumerate(classes)}
    return {name: number[folder] for name, folder in first.items() if folder is not None}, tuple(classes)


def _stored_labels(stored: Any, listing: Listing) -> Labels | None:
    pairs = stored.get("labels") if isinstance(stored, dict) else None
    if isinstance(stored, dict) and pairs is None:
        return None
    try:
        table = {str(name): label for name, label in pairs}  # type: ignore[union-attr]
    except (TypeError, ValueError) as error:
        raise DataError(f'{LABEL_FILE} of {listing.path} must hold {{"labels": [[name, class], ...]}}.') from error
    wrong = [name for name in listing.names if type(table.get(name)) is not int or table[name] < 0]
    if wrong:
        raise DataError(
            f"{LABEL_FILE} of {listing.path} gives no class number >= 0 for {len(wrong)} images, such as {wrong[0]}."
        )
    count = max(table[name] for name in listing.names) + 1
    names = stored.get("classes") or [str(k) for k in range(count)]
    if not isinstance(names, list) or len(names) < count or len(set(map(str, names))) != len(names):
        raise DataError(f"{LABEL_FILE} of {listing.path} needs {count} different class names; got {names!r}.")
    return {name: table[name] for name in listing.names}, tuple(map(str, names))


def _parse(content: bytes, path: Path) -> Any:
    return parse_json(content, f"{LABEL_FILE} of {path}", kind=object, entries=LABEL_ENTRIES, error=DataError)


def _is_image(file: str) -> bool:
    return not file.startswith(".") and file.lower().endswith(SUFFIXES)


def _unsafe(entry: zipfile.ZipInfo) -> str:
    """Say why an entry's name or kind must not be trusted; "" if it may be."""
    name = entry.orig_filename
    if "\0" in name or "\\" in name:
        return "named with a backslash or a zero byte"
    if name.startswith("/") or (len(name) > 1 and name[1] == ":"):
        return "an absolute path"
    if ".." in name.split("/"):
        return "outside the archive ('..')"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a symbolic link"
    if entry.flag_bits & 1:
        return "encrypted"
    return ""
