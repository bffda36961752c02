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
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from sfumato.core.archives import open_zip
from sfumato.core.errors import printable
from sfumato.core.reading import parse_json, read_bytes
from sfumato.data.dataset import DataError, numbered
from sfumato.data.decoding import SUFFIXES
from sfumato.data.splits import is_split
from sfumato.data.told.attributes import Columns, read_table

LABEL_FILE = "dataset.json"
TABLE_FILE = "attributes.csv"  # numbers of the images; it stands at the top of a source
KINDS = 5  # kinds of other files that are named
MAX_BYTES = 1 << 28
"""The most bytes one file may have: 256 MiB."""
LABEL_ENTRIES = 5_000_000
"""The most entries of a label file, three an image (ImageNet needs 3.9 million)."""


Labels = tuple[dict[str, int], tuple[str, ...]]
"""The class number of every file, and the names of the classes in that order."""


class Listing(Protocol):
    """Name the image files of a source and read them.

    Attributes:
        path: Folder, archive or table that holds the files.
        names: Its image files, in order.
        others: The other files, which are passed over.
        labelled_by: What gives the labels, in messages.
        has_label_file: Whether `label_file` returns anything.
    """

    path: Path
    names: tuple[str, ...]
    others: tuple[str, ...] = ()
    labelled_by: str = LABEL_FILE
    has_label_file: bool = True

    def read(self, name: str) -> bytes:
        """Return the bytes of one file of the source; DataError if it is larger than MAX_BYTES or damaged."""
        ...

    def label_file(self) -> Any:
        """Return the parsed ``dataset.json``, or None if there is none."""
        ...

    def files(self) -> list[Path]:
        """Return the files on disk that hold all this."""
        ...

    def table(self) -> Columns | None:
        """Return the numbers told of each image beside the images, by name; None if there are none.

        Raises:
            DataError: If the table of numbers is malformed.
        """
        if TABLE_FILE not in self.others:
            return None
        where = f"{TABLE_FILE} of {self.path}"
        try:
            return read_table(self.read(TABLE_FILE).decode("utf-8-sig"), where)
        except UnicodeDecodeError:
            raise DataError(f"{where} is no text in UTF-8.") from None


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
        passed = f" It holds {passed_over(listing)}." if listing.others else ""
        raise DataError(f"{path} holds no images ({', '.join(SUFFIXES)}).{passed}")
    return listing


def passed_over(listing: Listing) -> str:
    """Say which files are neither images by their names nor the table: how many of each kind; "" for none."""
    kinds = Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in listing.others if name != TABLE_FILE)
    told = ", ".join(f"{count:,} {printable(kind)}" for kind, count in kinds.most_common(KINDS))
    told += f" and {len(kinds) - KINDS} more kinds" if len(kinds) > KINDS else ""
    return f"{kinds.total():,} other file{'s' * (kinds.total() > 1)} ({told})" if kinds else ""


class FolderListing(Listing):
    """List a folder with all its sub-folders; hidden files and other suffixes are passed over.

    Arguments:
        path: An existing folder. Links to folders are followed, each real folder once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.has_label_file = (path / LABEL_FILE).is_file()
        found, seen = [], set()
        for top, folders, files in os.walk(path, followlinks=True):
            real = os.path.realpath(top)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            here = Path(top).relative_to(path)
            found += [(here / f).as_posix() for f in files if not f.startswith(".")]
        self.names, self.others = _divided(found)

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return read_bytes(self.path / name, MAX_BYTES, DataError)

    def label_file(self) -> Any:
        """Return the parsed label file, or None if there is none."""
        return _parse(self.read(LABEL_FILE), self.path) if self.has_label_file else None

    def files(self) -> list[Path]:
        """Return every image, and the label file."""
        return [self.path / name for name in (*self.names, LABEL_FILE)]


class ZipListing(Listing):
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
        self.has_label_file = LABEL_FILE in seen
        visible = [name for name in seen if not PurePosixPath(name).name.startswith(".") and not name.endswith("/")]
        self.names, self.others = _divided(visible)

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
        return _parse(self.read(LABEL_FILE), self.path) if self.has_label_file else None

    def files(self) -> list[Path]:
        """Return the archive."""
        return [self.path]


class Part(Listing):
    """List one folder of a source that holds its splits, such as ``train``.

    Arguments:
        whole: Listing of the folder or archive with all its splits.
        folder: The folder's name within it.
        classes: Names of the classes of all splits; () if none has sub-folders.
    """

    def __init__(self, whole: Listing, folder: str, classes: tuple[str, ...]) -> None:
        self.whole, self.folder, self.classes, self.path = whole, folder, classes, whole.path
        self.labelled_by = f"Folder {folder}"
        self.names = tuple(name for name in whole.names if name.startswith(f"{folder}/"))
        self.others = tuple(name for name in whole.others if name.startswith(f"{folder}/"))

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return self.whole.read(name)

    def files(self) -> list[Path]:
        """Return the files of the whole source."""
        return self.whole.files()

    def table(self) -> Columns | None:
        """Return the numbers of all splits; errors as for `Listing.table`."""
        return self.whole.table()

    def label_file(self) -> Any:
        """Return the labels as ``dataset.json`` would hold them: the sub-folders."""
        inner = {name: _top(name.removeprefix(f"{self.folder}/")) for name in self.names}
        if not any(inner.values()):
            return {"labels": None}
        number = {name: k for k, name in enumerate(self.classes)}
        return {
            "labels": [[name, number.get(top or "", -1)] for name, top in inner.items()],
            "classes": list(self.classes),
        }


def parts_of(listing: Listing) -> dict[str, Listing]:
    """Return the splits of a source by name: the folders train, val, test, ...; itself under "" if it has none.

    Raises:
        DataError: If folders of splits stand beside others.
    """
    tops = {_top(name) for name in listing.names} if not listing.has_label_file else set()
    base = ""
    if len(tops) == 1 and (only := next(iter(tops))) and not is_split(only):  # as in images/train, images/val
        base = f"{only}/"
        tops = {_top(name.removeprefix(base)) for name in listing.names}
    splits = {top for top in tops if top is not None and is_split(top)}
    if not splits or (len(splits) == 1 and len(tops) > 1):
        return {"": listing}
    if others := sorted(top or "images at its top" for top in tops - splits):
        raise DataError(
            f"{listing.path} holds the splits {', '.join(sorted(splits))} beside {', '.join(others[:3])}, so it is not "
            "clear what is a class. Name one of them as the data, or move the others away."
        )
    inner = [name.removeprefix(base).partition("/")[2] for name in (*listing.names, *listing.others)]
    classes = tuple(sorted({top for name in inner if (top := _top(name)) is not None}))
    return {top: Part(listing, f"{base}{top}", classes) for top in sorted(splits)}


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
    first = {name: _top(name) for name in listing.names}
    classes = sorted({folder for folder in first.values() if folder is not None})
    if not classes:
        return None
    loose = [name for name, folder in first.items() if folder is None]
    if loose:
        raise DataError(
            f"{listing.path} holds images at its top ({loose[0]} and {len(loose) - 1} more) beside sub-folders, so "
            "their class is unknown. Move them into a sub-folder, or set data.labels=false."
        )
    if lost := sorted({folder for name in listing.others if (folder := _top(name)) is not None} - set(classes)):
        raise DataError(
            f"Folder {lost[0]} of {listing.path} holds no image that can be read ({', '.join(SUFFIXES)}), so its class "
            f"would vanish. It holds {passed_over(Part(listing, lost[0], ()))}. Convert them, or move the folder away."
        )
    number = {folder: k for k, folder in enumerate(classes)}
    return {name: number[folder] for name, folder in first.items() if folder is not None}, tuple(classes)


def _top(name: str) -> str | None:
    """Return the first folder of a name, or None for a file at the top."""
    return name.partition("/")[0] if "/" in name else None


def _stored_labels(stored: Any, listing: Listing) -> Labels | None:
    pairs = stored.get("labels") if isinstance(stored, dict) else None
    if isinstance(stored, dict) and pairs is None:
        return None
    try:
        table = {str(name): label for name, label in pairs}  # type: ignore[union-attr]
    except (TypeError, ValueError) as error:
        raise DataError(
            f'{listing.labelled_by} of {listing.path} must hold {{"labels": [[name, class], ...]}}.'
        ) from error
    wrong = [name for name in listing.names if type(table.get(name)) is not int or table[name] < 0]
    if wrong:
        raise DataError(
            f"{listing.labelled_by} of {listing.path} gives no class number >= 0 for {len(wrong)} images, such as "
            f"{wrong[0]}."
        )
    count = max(table[name] for name in listing.names) + 1
    names = stored.get("classes") or numbered(count, f"The labels of {listing.path}")
    if not isinstance(names, list) or len(names) < count or len(set(map(str, names))) != len(names):
        raise DataError(
            f"{listing.labelled_by} of {listing.path} needs {count} different class names; got {names!r:.200}."
        )
    return {name: table[name] for name in listing.names}, tuple(map(str, names))


def _parse(content: bytes, path: Path) -> Any:
    return parse_json(content, f"{LABEL_FILE} of {path}", kind=object, entries=LABEL_ENTRIES, error=DataError)


def _divided(files: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of images and of other files, each in order."""
    found = sorted(name for name in files if name != LABEL_FILE)
    images = tuple(name for name in found if name.lower().endswith(SUFFIXES))
    return images, tuple(name for name in found if not name.lower().endswith(SUFFIXES))


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
