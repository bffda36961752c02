"""Prepare a dataset once: crop, resize and convert a folder or archive into one zip of PNG files.

The result has the layout of StyleGAN and EDM, ``00000/img00000000.png`` with labels in ``dataset.json``, and loads by
`sfumato.data.zip`. Work is done in chunks; each finished chunk is a file of its own beside the target, renamed into
place when it is whole. So a run that was stopped goes on where it was, the target appears only when it is complete, and
its bytes do not depend on how often the work was interrupted. By default one bad file ends the preparation.

A prepared set is a source of its own: its split goes by the prepared pixels.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from sfumato.core.archives import opened
from sfumato.core.reading import read_text
from sfumato.data.dataset import DataError
from sfumato.data.decoding import to_picture
from sfumato.data.gathering import Shape, good_ones, read_all
from sfumato.data.listing import LABEL_FILE, Labels, Listing, labels_of, open_listing, stamp

CHUNK = 1000  # images between two resting points


@dataclass(frozen=True)
class Prepared:
    """Say what a preparation made.

    Arguments:
        path: Path of the archive.
        count: Number of images in the archive.
        skipped: Bad files left out.
        resumed: Images that an earlier, interrupted run had already done.
    """

    path: Path
    count: int
    skipped: int
    resumed: int


def prepare(
    source: str | Path, target: str | Path, shape: Shape, *, labels: bool = True, skip_bad: bool = False
) -> Prepared:
    """Write a folder or archive of images as one uniform zip, resuming if an earlier run was stopped.

    Arguments:
        source: A folder or a .zip file.
        target: The .zip file to write; must not exist.
        shape: Size and channels that every image gets; without a size all must have one.
        labels: Whether to look for labels.
        skip_bad: Whether to leave bad files out and count them, instead of failing.

    Returns:
        What was made.

    Raises:
        DataError: If the target exists, an interrupted run beside it had other settings, or a file is bad.
    """
    return prepare_listing(open_listing(source), Path(target), shape, labels=labels, skip_bad=skip_bad)


def prepare_listing(
    listing: Listing, target: Path, shape: Shape, *, labels: bool = True, skip_bad: bool = False
) -> Prepared:
    """Write an opened source as one uniform zip; arguments, result and errors as for `prepare`."""
    if target.suffix != ".zip" or target.exists():
        raise DataError(f"The target must be a new .zip file; got {target}{' (it exists)' if target.exists() else ''}.")
    classes = labels_of(listing) if labels else None
    work = target.with_name(f"{target.name}.work")
    begun = stamp(listing)
    _settle(work, {"source": begun, "names": list(listing.names), "shape": asdict(shape), "skip_bad": skip_bad})
    starts = range(0, len(listing.names), CHUNK)
    chunks = [work / f"{start:08d}.zip" for start in starts]
    resumed = 0
    with tqdm(total=len(listing.names), desc=f"Preparing {target.name}", unit="img", disable=None) as bar:
        for start, chunk in zip(starts, chunks):
            names = listing.names[start : start + CHUNK]
            if chunk.exists():
                resumed += len(names)
            else:
                _write_chunk(chunk, listing, names, shape, skip_bad)
            bar.update(len(names))
    if stamp(listing) != begun:
        raise DataError(f"{listing.path} changed while it was prepared. Delete {work} and start anew.")
    count = _join(chunks, target, classes)
    shutil.rmtree(work)
    return Prepared(target, count, len(listing.names) - count, resumed)


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
    work.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(written)
    os.replace(part, file)


def _write_chunk(chunk: Path, listing: Listing, names: tuple[str, ...], shape: Shape, skip_bad: bool) -> None:
    found = read_all(listing, shape, names)
    found = [f for f in found if f.pixels is not None] if skip_bad else good_ones(listing, found, skip_bad=False)
    part = chunk.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for image in found:
            archive.writestr(_entry(image.name), _png(image.pixels))  # type: ignore[arg-type]
    os.replace(part, chunk)


def _join(chunks: list[Path], target: Path, classes: Labels | None) -> int:
    part = target.with_name(f"{target.name}.part")
    pairs: list[tuple[str, int | None]] = []
    size = None
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for name, content in _entries(chunks):
            with Image.open(io.BytesIO(content)) as image:
                found = (*image.size, image.mode)
            if size not in (None, found):
                part.unlink()
                raise DataError(f"{name} is {found} where others are {size}. Give a size and channels, and start anew.")
            size = found
            stored_as = f"{len(pairs) // 1000:05d}/img{len(pairs):08d}.png"
            pairs.append((stored_as, None if classes is None else classes[0][name]))
            archive.writestr(_entry(stored_as), content)
        if not pairs:
            part.unlink()
            raise DataError(f"None of the images for {target} is good; `sfumato data check` says why.")
        stored = {"labels": None} if classes is None else {"labels": pairs, "classes": classes[1]}
        archive.writestr(_entry(LABEL_FILE), json.dumps(stored))
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
