"""lmdb: a database of encoded images, the layout in which LSUN is published.

Every value is one image file (WebP, JPEG or PNG), every key names it. A folder of several databases, as LSUN's
``bedroom_train_lmdb`` beside ``church_outdoor_train_lmdb``, is a labelled set: a class each. Needs the package `lmdb`:
pip install 'sfumato[data]'.

References:
    LSUN: Construction of a Large-scale Image Dataset using Deep Learning with Humans in the Loop (Yu et al., 2015),
    https://arxiv.org/abs/1506.03365
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sfumato.core.database import check_pages
from sfumato.core.optional import optional
from sfumato.data.dataset import DataError, Dataset
from sfumato.data.gathering import Shape, gather
from sfumato.data.listing import MAX_BYTES
from sfumato.data.splits import HELD_OUT

FILE = "data.mdb"
SUFFIXES = ("_train_lmdb", "_val_lmdb", "_test_lmdb", "_lmdb", ".lmdb")


class DatabaseListing:
    """List the values of one database, or of each in a folder, as files (see `listing.Listing`).

    Arguments:
        path: A folder with data.mdb, or a folder of such folders.

    Raises:
        DataError: If the package is missing or there is no database.
    """

    def __init__(self, path: Path) -> None:
        lmdb = optional("lmdb", "data", "This source", DataError)
        self.path = path
        self._folders = folders = (
            [path] if (path / FILE).is_file() else sorted(p.parent for p in path.glob(f"*/{FILE}"))
        )
        if not folders:
            raise DataError(f"{path} holds no database ({FILE}), nor does a folder in it.")
        for folder in folders:
            check_pages(folder / FILE, DataError)
        try:
            self._databases = [lmdb.open(str(folder), readonly=True, lock=False, readahead=False) for folder in folders]
        except lmdb.Error as error:
            raise DataError(f"{path} is not a readable database: {error}.") from error
        self._classes = [_stripped(folder.name) for folder in folders] if len(folders) > 1 else []
        self._places: dict[str, tuple[int, bytes]] = {}
        for i, database in enumerate(self._databases):
            prefix = f"{self._classes[i]}/" if self._classes else ""
            try:
                with database.begin() as transaction:
                    keys = [bytes(key) for key in transaction.cursor().iternext(keys=True, values=False)]
            except lmdb.Error as error:
                raise DataError(f"{folders[i]} is damaged: {error}.") from error
            for key in keys:
                text = key.decode("ascii", "replace")
                self._places[prefix + (text if text.isprintable() and "/" not in text else key.hex())] = (i, key)
        self.names = tuple(sorted(self._places))
        if not self.names:
            raise DataError(f"{path} holds a database without entries.")

    def read(self, name: str) -> bytes:
        """Return one encoded image."""
        i, key = self._places[name]
        with self._databases[i].begin(buffers=True) as transaction:
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
        return [folder / FILE for folder in self._folders]


def _stripped(name: str) -> str:
    """Return a class's name without what LSUN adds to a folder's.

    >>> _stripped("church_outdoor_train_lmdb")
    'church_outdoor'
    """
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


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
    labels: bool = True,
    skip_bad: bool = False,
) -> Dataset:
    """Load an LMDB database of encoded images, as LSUN's; several in a folder are a class each.

    Arguments:
        path: A folder with data.mdb, or a folder of such folders.
        split: "train", "val", "test" or "all".
        val: Share held out for validation by the hash of the image, in [0, 1).
        test: Share held out for testing by the hash of the image, in [0, 1).
        size: Side in pixels after a centred square crop and a resize; None requires images of one size.
        channels: 1 or 3; None requires that all are grey or all are colour.
        filter: Pillow filter: nearest, box, bilinear, hamming, bicubic or lanczos.
        crop: Side of the centred square to cut first; None means the largest.
        alpha: Treatment of transparency: "refuse", "black", "white" or "drop".
        labels: False ignores the databases' names.
        skip_bad: Whether to leave bad images out and count them, instead of failing.

    Returns:
        uint8 images (N, C, H, W).

    Raises:
        DataError: If the package or the database is missing, or an image is bad.
    """
    path = Path(path).expanduser()
    listing, name = DatabaseListing(path), _stripped(path.resolve().name)
    shape = Shape(size, channels, filter, crop, alpha)
    return gather(listing, name, shape, split=split, val=val, test=test, labels=labels, skip_bad=skip_bad)
