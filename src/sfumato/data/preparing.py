"""Prepare a dataset once: crop, resize and convert a folder or archive into one zip of PNG files.

The result has the layout of StyleGAN and EDM, ``00000/img00000000.png`` with labels in ``dataset.json``, and loads by
`sfumato.data.zip`; the numbers that the source tells of its images (attributes.csv, columns of the Hub) go with them.
Work is done in chunks; each finished chunk is a file of its own beside the target, renamed into place when it is whole.
So a run that was stopped goes on where it was, the target appears only when it is complete, and its bytes do not depend
on how often the work was interrupted. By default one bad file ends the preparation.

A prepared set is a source of its own: its split goes by the prepared pixels.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sfumato.core.archives import opened
from sfumato.core.errors import printable
from sfumato.core.reading import read_text
from sfumato.core.writing import replacing
from sfumato.data.dataset import DataError
from sfumato.data.decoding import to_picture
from sfumato.data.gathering import Shape, good_ones, read_all
from sfumato.data.listing import LABEL_FILE, TABLE_FILE, Labels, Listing, Part, labels_of, stamp
from sfumato.data.sources import listing_of
from sfumato.data.told.attributes import Columns, rows_of, written_table
from sfumato.progress import bar_of

CHUNK = 1000  # images between two resting points
FORM = 2  # of the unfinished work: images are named by their numbers


@dataclass(frozen=True)
class Prepared:
    """Say what a preparation made.

    Arguments:
        path: Path of the archive.
        count: Number of images in the archive.
        skipped: Bad files left out, by reason, of the images that this run read.
        resumed: Images that an earlier, interrupted run had already done.
    """

    path: Path
    count: int
    skipped: Mapping[str, int]
    resumed: int


def prepare(
    source: str | Path,
    target: str | Path,
    shape: Shape,
    *,
    labels: bool = True,
    numbers: bool = True,
    skip_bad: bool = False,
) -> Prepared:
    """Write a folder or archive of images as one uniform zip, resuming if an earlier run was stopped.

    Arguments:
        source: A folder or a .zip file; of one that holds splits, the train split.
        target: The .zip file to write; must not exist.
        shape: Size and channels that every image gets; without a size all must have one.
        labels: Whether to look for labels.
        numbers: Whether to take along the numbers that the source tells of its images, such as attributes.csv.
        skip_bad: Whether to leave bad files out and count them, instead of failing.

    Returns:
        What was made.

    Raises:
        DataError: If the target exists, an interrupted run beside it had other settings, or a file is bad.
    """
    listing = listing_of(str(source))[1]
    return prepare_listing(listing, Path(target), shape, labels=labels, numbers=numbers, skip_bad=skip_bad)


def prepare_listing(
    listing: Listing, target: Path, shape: Shape, *, labels: bool = True, numbers: bool = True, skip_bad: bool = False
) -> Prepared:
    """Write an opened source as one uniform zip; arguments, result and errors as for `prepare`."""
    if target.suffix != ".zip" or target.exists():
        raise DataError(f"The target must be a new .zip file; got {target}{' (it exists)' if target.exists() else ''}.")
    classes, table = labels_of(listing) if labels else None, _numbers(listing) if numbers else None
    work = target.with_name(f"{target.name}.work")
    begun = stamp(listing)
    settings = {"source": begun, "names": list(listing.names), "shape": asdict(shape), "skip_bad": skip_bad}
    _settle(work, {**settings, "form": FORM})
    starts = range(0, len(listing.names), CHUNK)
    chunks = [work / f"{start:08d}.zip" for start in starts]
    resumed, skipped = 0, Counter[str]()
    with bar_of(len(listing.names), "img", f"Preparing {target.name}") as bar:
        for start, chunk in zip(starts, chunks):
            names = listing.names[start : start + CHUNK]
            if chunk.exists():
                resumed += len(names)
            else:
                skipped += _write_chunk(chunk, listing, start, shape, skip_bad)
            bar.update(len(names))
    if stamp(listing) != begun:
        raise DataError(f"{listing.path} changed while it was prepared. Delete {work} and start anew.")
    count = _join(chunks, target, listing.names, classes, table)
    shutil.rmtree(work)
    if (before := len(listing.names) - count - skipped.total()) > 0:
        skipped["found by an earlier run"] = before
    return Prepared(target, count, skipped, resumed)


def _numbers(listing: Listing) -> Columns | None:
    """Return the numbers that the source tells of every image, or None if it tells none."""
    try:
        table = listing.table()
        if table is not None:
            whole = listing.whole if isinstance(listing, Part) else listing  # a split's table is that of all splits
            rows_of(table, listing.names, whole.names, f"{TABLE_FILE} of {listing.path}")
    except DataError as error:
        raise DataError(
            f"{error} These numbers go with the images: mend them, or leave them out with --no-numbers."
        ) from None
    return table


def _settle(work: Path, settings: dict[str, object]) -> None:
    """Open the folder of unfinished work, or refuse one that was begun with other settings."""
    file = work / "settings.json"
    written = json.dumps(settings, sort_keys=True)
    if file.exists():
        if read_text(file, error=DataError) == written:
            return
        if any(work.glob("*.zip")):
            raise DataError(
                f"{work} holds unfinished work on other files or settings, or the files have changed since. Finish "
                "that, or delete it."
            )
    with replacing(file) as part:
        part.write_text(written)


def _write_chunk(chunk: Path, listing: Listing, start: int, shape: Shape, skip_bad: bool) -> Counter[str]:
    """Write the good images of a chunk, each named by its number in the source; return why others are bad."""
    names = listing.names[start : start + CHUNK]
    found = read_all(listing, shape, names)
    if not skip_bad:
        good_ones(listing, found, skip_bad=False)
    with replacing(chunk) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for number, image in enumerate(found, start):
            if image.pixels is not None:
                archive.writestr(_entry(f"{number:09d}"), _png(image.pixels))
    return Counter(image.reason for image in found if image.pixels is None)


def _join(
    chunks: list[Path], target: Path, names: Sequence[str], classes: Labels | None, numbers: Columns | None
) -> int:
    part = chunks[0].with_name(f"whole.{os.getpid()}.part")
    pairs: list[tuple[str, int | None]] = []
    told: dict[str, list[float]] = {}
    size = None
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for number, content in _entries(chunks):
            name = names[int(number)]
            with Image.open(io.BytesIO(content)) as image:
                found = (*image.size, image.mode)
            if size not in (None, found):
                part.unlink()
                raise DataError(
                    f"{printable(name)} is {found} where others are {size}. Give a size and channels, and start anew."
                )
            size = found
            stored_as = f"{len(pairs) // 1000:05d}/img{len(pairs):08d}.png"
            pairs.append((stored_as, None if classes is None else classes[0][name]))
            if numbers is not None:
                told[stored_as] = numbers[1][name]
            archive.writestr(_entry(stored_as), content)
        if not pairs:
            part.unlink()
            raise DataError(f"None of the images for {target} is good; `sfumato data check` says why.")
        stored = {"labels": None} if classes is None else {"labels": pairs, "classes": classes[1]}
        archive.writestr(_entry(LABEL_FILE), json.dumps(stored))
        if numbers is not None:
            archive.writestr(_entry(TABLE_FILE), written_table((numbers[0], told)))
    os.replace(part, target)
    return len(pairs)


def _entries(chunks: list[Path]) -> Iterator[tuple[str, bytes]]:
    for chunk in chunks:
        with opened(chunk, error=DataError) as archive:
            for entry in archive.infolist():
                yield entry.filename, archive.read(entry)


def _entry(name: str) -> zipfile.ZipInfo:
    """Name an entry with a fixed date, so that equal contents give equal archives."""
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    to_picture(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
