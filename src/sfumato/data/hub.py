"""hub: an image dataset of the Hugging Face Hub, or parquet and arrow files of its library on disk.

A row is an image and, if there is one, a class. The bytes of the image are taken undecoded, so they are judged by the
same rules as files: refused rather than guessed at. Official splits are kept (`data.splits.pieces`): training takes
the split called train; "val" is the validation split, and "test" is the test split, or the validation split where
there is no test. A split whose labels are all -1, as the test split of ImageNet, has none. Labels are a class, an
integer or a text; classes of texts are sorted, over all splits. The other columns of numbers, or of true and false,
are attributes (`data.told`). Needs the package `datasets`: pip install 'sfumato[data]'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfumato.core.optional import optional
from sfumato.data.dataset import DataError, Dataset, numbered
from sfumato.data.gathering import Numbers, Shape, gather
from sfumato.data.listing import Listing
from sfumato.data.splits import HELD_OUT
from sfumato.data.told.attributes import Columns, rows_of

LABELS = ("label", "labels", "class", "class_name", "category")
NUMBERS = ("bool", "float", "int", "uint")  # how the types of columns that are attributes begin


class RowListing(Listing):
    """List the rows of one split as files (see `listing.Listing`).

    Arguments:
        path: The source as the user named it.
        rows: The split, as the library gives it.
        split: Name of the split, the first part of every file's name.
    """

    def __init__(self, path: Path, rows: Any, split: str) -> None:
        from datasets import ClassLabel, Image, Value

        self.path, kinds = path, rows.features
        images = [name for name, kind in kinds.items() if isinstance(kind, Image)]
        if len(images) != 1:
            raise DataError(f"{path} must have one column of images; it has {len(images)} among {', '.join(kinds)}.")
        plain = [
            name
            for name, kind in kinds.items()
            if isinstance(kind, Value)
            and name in LABELS
            and kind.dtype.startswith(("int", "uint", "string", "large_string"))
        ]
        classes = [name for name, kind in kinds.items() if isinstance(kind, ClassLabel)]
        labels = classes or plain
        self.numbers = tuple(
            name
            for name, kind in kinds.items()
            if isinstance(kind, Value) and name not in labels[:1] and kind.dtype.startswith(NUMBERS)
        )
        self._rows = rows.cast_column(images[0], Image(decode=False))
        self._image, self._label = images[0], labels[0] if labels else None
        self.labelled_by = f"Column {self._label}"
        self.classes = list(kinds[classes[0]].names) if classes else None
        self.names = tuple(f"{split}/{i:09d}" for i in range(len(rows)))

    def values(self) -> list[Any]:
        """Return the labels as they are stored, None for those that are missing."""
        return list(self._rows[self._label]) if self._label else []

    def told(self) -> dict[str, list[float]]:
        """Return the numbers of every row, NaN for what is null.

        Raises:
            DataError: If one is not finite.
        """
        columns = []
        for name in self.numbers:
            values = [math.nan if value is None else float(value) for value in self._rows[name]]
            bad = [i for i, value in enumerate(self._rows[name]) if value is not None and not math.isfinite(value)]
            if bad:
                raise DataError(
                    f"Row {bad[0]} of {self.path}, column {name}, must hold a finite number, or null where it is not "
                    f"known; got {values[bad[0]]}."
                )
            columns.append(values)
        return {file: list(row) for file, row in zip(self.names, zip(*columns))}

    def table(self) -> Columns | None:
        """Return the columns of numbers, if there are any; errors as for `told`."""
        return (self.numbers, self.told()) if self.numbers else None

    def read(self, name: str) -> bytes:
        """Return the undecoded bytes of a row's image."""
        value = self._rows[int(name.rpartition("/")[2])][self._image]
        if value is None:
            return b""
        content = value["bytes"]
        return content if content is not None else Path(value["path"]).read_bytes()

    def label_file(self) -> Any:
        """Return the labels as ``dataset.json`` would hold them, or None."""
        values = self.values()
        if all(value is None or value == -1 for value in values):
            return {"labels": None}
        number = {name: k for k, name in enumerate(self.classes or [])}
        labels = [value if isinstance(value, int) else number.get(value, -1) for value in values]
        stored: dict[str, Any] = {"labels": list(map(list, zip(self.names, labels)))}
        return stored | ({"classes": self.classes} if self.classes else {})

    def files(self) -> list[Path]:
        """Return the tables in which the library keeps the rows."""
        return [Path(table["filename"]) for table in self._rows.cache_files]


def hub(
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
    attributes: bool = False,
) -> Dataset:
    """Load an image dataset of the Hugging Face Hub, or its parquet or arrow files on disk.

    Arguments:
        path: OWNER/NAME on the Hub; a .parquet or .arrow file, a folder of them, or a folder of `save_to_disk`.
        split: "train", "val", "test" or "all".
        val: Share of the train part held out for validation by the hash of the image, in [0, 1).
        test: The same for testing, where the source has no test or validation split.
        size: Side in pixels after a centred square crop and a resize; None requires images of one size.
        channels: 1 or 3 (2 or 4 with a kept alpha); None requires that all have the same.
        filter: Pillow filter: nearest, box, bilinear, hamming, bicubic or lanczos.
        crop: Side of the centred square to cut first; None means the largest.
        alpha: Treatment of transparency: "refuse", "black", "white", "drop", or "keep" as a channel.
        cmyk: Treatment of CMYK files: "refuse", or "convert" without a colour profile.
        labels: False ignores the labels.
        skip_bad: Whether to leave bad images out and count them, instead of failing.
        attributes: Whether to read the other columns of numbers.

    Returns:
        uint8 images (N, C, H, W).

    Raises:
        DataError: If the package or the source is missing, or an image is bad.
    """
    shape, parts = Shape(size, channels, filter, crop, alpha, cmyk), row_listings(path)
    return gather(
        dict(parts), Path(str(path)).name, shape, split=split, val=val, test=test, labels=labels, skip_bad=skip_bad,
        numbers=_columns(path, parts) if attributes else None,
    )  # fmt: skip


def _columns(path: str | Path, parts: Mapping[str, RowListing]) -> Numbers:
    """Return what gives names and numbers of rows of any split.

    Raises:
        DataError: If there are none, or splits have others.
    """
    found = {part.numbers for part in parts.values()}
    if len(found) > 1 or not min(found):
        each = " and ".join(", ".join(names) or "none" for names in sorted(found))
        raise DataError(
            f"{path} needs columns of numbers, the same in every split, for data.attributes; it has {each}."
        )
    rows = {file: row for part in parts.values() for file, row in part.told().items()}
    table: Columns = (next(iter(found)), rows)
    return lambda files: (table[0], rows_of(table, files, rows, str(path)))


def row_listings(path: str | Path) -> dict[str, RowListing]:
    """Return the splits of a source, by name.

    Raises:
        DataError: If the package or the source is missing.
    """
    datasets = optional("datasets", "data", "This source", DataError)
    local = Path(path).expanduser()
    try:
        found = _open(datasets, str(path), local)
    except DataError:
        raise
    except Exception as error:  # the library raises its own, its transport's and Arrow's errors
        raise DataError(f"{path} could not be loaded by the package datasets: {error}") from error
    splits = dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}
    listings = {name: RowListing(local, rows, name) for name, rows in splits.items()}
    _share_classes(list(listings.values()))
    return listings


def _share_classes(parts: list[RowListing]) -> None:
    """Give all splits of a source without named classes the same ones: the texts, or as many numbers as there are."""
    open_ones = [part for part in parts if part.classes is None]
    values = {value for part in open_ones for value in part.values() if value is not None}
    texts = sorted(value for value in values if isinstance(value, str))
    count = max((value for value in values if isinstance(value, int)), default=-1) + 1
    for part in open_ones:
        part.classes = texts or numbered(count, f"The labels of {part.path}") or None


def _open(datasets: Any, name: str, local: Path) -> Any:
    if local.is_file():
        if local.suffix not in (".parquet", ".arrow"):
            raise DataError(f"{local} is neither a .parquet nor an .arrow file.")
        return datasets.load_dataset(local.suffix[1:], data_files=str(local))
    if local.is_dir():
        if (local / "state.json").is_file() or (local / "dataset_dict.json").is_file():
            return datasets.load_from_disk(str(local))
        return datasets.load_dataset(str(local))
    return datasets.load_dataset(name)
