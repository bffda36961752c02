"""lmdb: a database of encoded images, the layout in which LSUN is published.

Every value is one image file (WebP, JPEG or PNG), every key names it; a key such as ``length``, under which writers
keep how many there are, is passed over. A database is a folder with data.mdb, or one file. A folder of several
databases, as LSUN's ``bedroom_train_lmdb`` beside ``church_outdoor_train_lmdb``, is a labelled set: a class each, and
``bedroom_val_lmdb`` beside them belongs to the validation split. Needs the package `lmdb`: pip install 'sfumato[data]'.

The library maps the file into memory, so one that has been cut short would end the process when it is read: its size is
compared with its own header first.

References:
    LSUN: Construction of a Large-scale Image Dataset using Deep Learning with Humans in the Loop (Yu et al., 2015),
    https://arxiv.org/abs/1506.03365
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sfumato.core.database import check_pages
from sfumato.core.optional import optional
from sfumato.data.dataset import DataError, Dataset
from sfumato.data.gathering import Shape, gather
from sfumato.data.listing import MAX_BYTES, Listing
from sfumato.data.splits import HELD_OUT

FILE, LOCK = "data.mdb", "lock.mdb"
SUFFIXES = ("_train_lmdb", "_val_lmdb", "_test_lmdb", "_lmdb", ".lmdb", ".mdb")
COUNTS = (b"length", b"__len__", b"__keys__", b"keys", b"num-samples", b"num_samples", b"size")
"""Keys under which writers keep how many images there are: no images."""
_OPENED: dict[Path, tuple[object, Any]] = {}  # a process may open a database once


class DatabaseListing(Listing):
    """List the values of one database, or of each in a folder, as files (see `listing.Listing`).

    Arguments:
        files: Databases, by what each is called among the classes; one database is no class.
        path: What the user named.

    Raises:
        DataError: If the package is missing or a database is damaged or empty.
    """

    def __init__(self, files: Sequence[Path], path: Path) -> None:
        self.path, self.labelled_by = path, "The names of the databases"
        self._classes = [_stripped(_named(file)) for file in files] if len(files) > 1 else []
        self._files = list(files)
        self._databases = [_opened(file) for file in files]
        self._places: dict[str, tuple[int, bytes]] = {}
        others = []
        for i, database in enumerate(self._databases):
            prefix = f"{self._classes[i]}/" if self._classes else ""
            with reading(path), database.begin() as transaction:
                keys = [bytes(key) for key in transaction.cursor().iternext(keys=True, values=False)]
            for key in keys:
                text = key.decode("ascii", "replace")
                name = prefix + (text if text.isprintable() and "/" not in text else key.hex())
                if key in COUNTS:
                    others.append(name)
                else:
                    self._places[name] = (i, key)
        self.names, self.others = tuple(sorted(self._places)), tuple(sorted(others))
        if not self.names:
            raise DataError(f"{path} holds a database without images.")

    def read(self, name: str) -> bytes:
        """Return one encoded image."""
        i, key = self._places[name]
        with reading(self.path), self._databases[i].begin(buffers=True) as transaction:
            value = transaction.get(key) or b""
            if len(value) > MAX_BYTES:
                raise DataError(f"{len(value):,} bytes, more than the {MAX_BYTES:,} allowed")
            return bytes(value)

    def label_file(self) -> Any:
        """Return the labels as ``dataset.json`` would hold them: a class for each database, if there are several."""
        if not self._classes:
            return {"labels": None}
        return {"labels": [[name, self._places[name][0]] for name in self.names], "classes": self._classes}

    def files(self) -> list[Path]:
        """Return the file of each database."""
        return self._files


def _stripped(name: str) -> str:
    """Return a class's name without what LSUN adds to a folder's.

    >>> _stripped("church_outdoor_train_lmdb")
    'church_outdoor'
    """
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def database_parts(path: str | Path) -> dict[str, Listing]:
    """Open a database, or the databases of a folder, by split: LSUN's end in _train_lmdb, _val_lmdb or _test_lmdb.

    Raises:
        DataError: If the package is missing, there is no database, or two would be one class.
    """
    path = Path(path).expanduser()
    files = [path] if path.is_file() else [path / FILE]
    if not files[0].is_file():
        files = sorted(
            {*path.glob(f"*/{FILE}"), *(p for s in SUFFIXES[-2:] for p in path.glob(f"*{s}") if p.is_file())}
        )
        files = [file for file in files if file.name != LOCK]
    if not files:
        raise DataError(
            f"{path} holds no database ({FILE}, or a file ending in .lmdb or .mdb), nor does a folder in it."
        )
    splits: dict[str, list[Path]] = {}
    for file in files:
        split = next((kind for kind in ("train", "val", "test") if _named(file).endswith(f"_{kind}_lmdb")), "")
        splits.setdefault(split if len(files) > 1 else "", []).append(file)
    if "" in splits and len(splits) > 1:  # not all say which split they are
        splits = {"": files}
    for some in splits.values():
        names = [_stripped(_named(file)) for file in some]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise DataError(
                f"{path} holds several databases that would be class {twice}. Rename one, or load it alone."
            )
    return {split: DatabaseListing(some, path) for split, some in splits.items()}


def is_database(path: Path) -> bool:
    """Return whether a path is that of a database, by the file it is or holds."""
    return (path / FILE).is_file() or (path.is_file() and path.suffix in SUFFIXES[-2:])


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the database library raises into an error that names the source."""
    library = optional("lmdb", "data", "This source", DataError)
    try:
        yield
    except library.Error as error:
        raise DataError(f"{path} is not a readable database: {error}.") from error


def _named(file: Path) -> str:
    return file.parent.name if file.name == FILE else file.name


def _opened(file: Path) -> Any:
    """Return an open database; one that is open already is shared, unless its file has changed."""
    file, about = file.resolve(), file.stat()
    stamp = (about.st_ino, about.st_size, about.st_mtime_ns)
    if file not in _OPENED or _OPENED[file][0] != stamp:
        library = optional("lmdb", "data", "This source", DataError)
        check_pages(file, DataError)
        if file in _OPENED:
            _OPENED.pop(file)[1].close()
        with reading(file):
            folder = file.name == FILE
            where = str(file.parent if folder else file)
            opened = library.open(where, subdir=folder, readonly=True, lock=False, readahead=False)
        _OPENED[file] = (stamp, opened)
    return _OPENED[file][1]


def lmdb(
    path: str | Path,
    *,
    split: str = "train",
    val: float = 0.0,
    test: float = HELD_OUT,
    size: int | None = None,
    channels: int | None = None,
    filter: str = "lanczos",
    crop: int | None = None,
    alpha: str = "refuse",
    cmyk: str = "refuse",
    labels: bool = True,
    skip_bad: bool = False,
) -> Dataset:
    """Load an LMDB database of encoded images, as LSUN's; several in a folder are a class each.

    Arguments:
        path: A folder with data.mdb, a database in one file, or a folder of several.
        split: "train", "val", "test" or "all".
        val: Share held out for validation by the hash of the image, in [0, 1).
        test: Share held out for testing by the hash of the image, in [0, 1).
        size: Side in pixels after a centred square crop and a resize; None requires images of one size.
        channels: 1 or 3 (2 or 4 with a kept alpha); None requires that all have the same.
        filter: Pillow filter: nearest, box, bilinear, hamming, bicubic or lanczos.
        crop: Side of the centred square to cut first; None means the largest.
        alpha: Treatment of transparency: "refuse", "black", "white", "drop", or "keep" as a channel.
        cmyk: Treatment of CMYK files: "refuse", or "convert" without a colour profile.
        labels: False ignores the databases' names.
        skip_bad: Whether to leave bad images out and count them, instead of failing.

    Returns:
        uint8 images (N, C, H, W).

    Raises:
        DataError: If the package or the database is missing, or an image is bad.
    """
    name = _stripped(Path(path).expanduser().resolve().name)
    shape = Shape(size, channels, filter, crop, alpha, cmyk)
    return gather(database_parts(path), name, shape, split=split, val=val, test=test, labels=labels, skip_bad=skip_bad)
