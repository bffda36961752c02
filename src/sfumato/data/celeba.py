"""CelebA: 202,599 photographs of faces, aligned and cropped to 178x218, with an official train/val/test partition.

The folder "celeba" of the data root holds ``list_eval_partition.txt`` and either ``img_align_celeba.zip`` or the folder
``img_align_celeba`` it unpacks to. They come from their authors' page for non-commercial research and cannot be
fetched automatically. A centred 178x178 square is cut and resized. ``list_attr_celeba.txt`` beside them, which is read
where attributes are asked for, says of 40 attributes whether each face has them; identities are not read.

The whole split is held in memory: 3 size^2 bytes an image, so 2.0 GB for the 162,770 training images at 64 pixels and
8.0 GB at 128.

References:
    Deep Learning Face Attributes in the Wild (Liu, Luo, Wang, Tang, 2015), https://arxiv.org/abs/1411.7766;
    files: https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html
"""

from __future__ import annotations

from pathlib import Path

import torch

from sfumato.core.reading import read_text
from sfumato.data.dataset import DataError, Dataset
from sfumato.data.gathering import Shape, good_ones, read_all, stacked
from sfumato.data.listing import Listing, open_listing
from sfumato.data.root import folder_of
from sfumato.data.splits import check_split
from sfumato.data.told.attributes import Columns, rows_of
from sfumato.download import check_digest

PARTITION = "list_eval_partition.txt"
ATTRIBUTES = "list_attr_celeba.txt"
PARTITION_MD5 = "d32c9cbf5e040fd4025c592c306e6668"
IMAGES = "img_align_celeba"
PARTS = ("train", "val", "test")  # the partition's 0, 1, 2
SQUARE = 178
PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


def celeba(
    *,
    split: str = "train",
    root: str | Path | None = None,
    size: int = 64,
    first: int | None = None,
    filter: str = "bicubic",
    attributes: bool = False,
) -> Dataset:
    """Load CelebA: aligned faces, centre crop 178, unlabelled; 162,770 train, 19,867 val and 19,962 test images.

    Arguments:
        split: "train", "val", "test" (the official partition) or "all".
        root: Data root holding the folder "celeba"; None means SFUMATO_DATA, else the cache.
        size: Side in pixels after the resize, usually 64 or 128.
        first: Read only the first so many images of the split; None reads all.
        filter: Pillow filter: nearest, box, bilinear, hamming, bicubic or lanczos.
        attributes: Whether to read the 40 attributes, 1 where a face has one and 0 where not.

    Returns:
        uint8 images (N, 3, size, size).

    Raises:
        DataError: If a file is missing, the partition is not the official one, or an image is bad.
    """
    check_split(split)
    folder = folder_of("celeba", root)
    names = [(i, name) for i, (name, part) in enumerate(read_partition(folder)) if split in (part, "all")][:first]
    listing = _images(folder)
    inside = {name.rsplit("/", 1)[-1]: name for name in listing.names}
    missing = [name for _, name in names if name not in inside]
    if missing or not names:
        raise DataError(f"{listing.path} lacks {len(missing)} images of CelebA, such as {missing[:3]}. Get it again.")
    shape = Shape(size=size, channels=3, filter=filter, crop=SQUARE)
    found = good_ones(listing, read_all(listing, shape, tuple(inside[name] for _, name in names)), skip_bad=False)
    table = read_attributes(folder) if attributes else ((), {})
    vector = rows_of(table, [name for _, name in names], table[1], ATTRIBUTES) if attributes else None
    part = "all official parts" if split == "all" else f"official {split} part"
    return Dataset(
        name="celeba",
        images=stacked(found),
        labels=None,
        classes=(),
        split=split,
        indices=torch.tensor([i for i, _ in names]),
        rule=f"{part}; {f'first {first}; ' if first else ''}{shape.written()}",
        attributes=table[0],
        vector=vector,
    )


def read_partition(folder: Path) -> list[tuple[str, str]]:
    """Read the official partition as (file name, "train" | "val" | "test"), in its order.

    Raises:
        DataError: If the file is missing or not the official one.
    """
    path = folder / PARTITION
    if not path.is_file():
        raise DataError(f"{path} is missing. Get it and {IMAGES}.zip from {PAGE} and put both there.")
    check_digest(path, "md5", PARTITION_MD5, "Replace it.", DataError)
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    return [(name, PARTS[int(part)]) for name, part in rows]


def read_attributes(folder: Path) -> Columns:
    """Read the official attributes: names in lower case, and 0 or 1 for each of every file.

    Raises:
        DataError: If the file is missing, or not as its authors wrote it: a count, the names, and a line a file of 1
            and -1.
    """
    path = folder / ATTRIBUTES
    if not path.is_file():
        raise DataError(f"{path} is missing, from which data.attributes are read. Get it from {PAGE} and put it there.")
    rows = [line.split() for line in read_text(path, error=DataError).splitlines() if line.strip()]
    names = tuple(name.lower() for name in rows[1]) if len(rows) > 1 else ()
    wrong = [row[0] for row in rows[2:] if len(row) != len(names) + 1 or not {*row[1:]} <= {"1", "-1"}]
    if not names or wrong:
        raise DataError(f"{path} holds a count, names, and 1 or -1 of each for every file; {wrong[:1]} is not so.")
    return names, {row[0]: [float(value == "1") for value in row[1:]] for row in rows[2:]}


def _images(folder: Path) -> Listing:
    for candidate in (folder / IMAGES, folder / f"{IMAGES}.zip"):
        if candidate.exists():
            return open_listing(candidate)
    raise DataError(f"{folder} has neither {IMAGES}/ nor {IMAGES}.zip. Get the archive from {PAGE} and put it there.")
