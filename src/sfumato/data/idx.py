"""Read the IDX format of MNIST and its successors.

A gzip-compressed file: two zero bytes, one byte for the type (0x08 = uint8), one for the number of axes, the length of
each axis as a big-endian 32-bit integer, then the values in C order.

References:
    The MNIST database of handwritten digits (LeCun, Cortes, Burges, 1998), http://yann.lecun.com/exdb/mnist/,
    "file formats for the MNIST database".
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from sfumato.data.dataset import DataError, Dataset
from sfumato.data.root import fetch
from sfumato.download import Remote


def read_idx(path: Path) -> np.ndarray:
    """Read one IDX file of unsigned bytes.

    Arguments:
        path: Path of the ``.gz`` file.

    Returns:
        uint8, as many axes as the file names.

    Raises:
        DataError: If the file is not gzip, is cut short, or its header does not fit its length.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is not a whole gzip file ({error}). Delete it to download it again.") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        head = content[:4].hex() or "nothing"
        raise DataError(f"{path} is not an IDX file of unsigned bytes, which begins with 000008; found {head}.")
    axes = content[3]
    start = 4 + 4 * axes
    shape = struct.unpack_from(f">{axes}I", content, 4) if len(content) >= start else ()
    if not shape or math.prod(shape) != len(content) - start:
        raise DataError(f"{path} announces the shape {shape} but holds {len(content) - start} values.")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def read_part(name: str, folder: Path, files: dict[str, Remote], classes: tuple[str, ...], part: str) -> Dataset:
    """Read the official train or test part of a set in the four-file layout of MNIST, fetching what is missing.

    Arguments:
        name: Name of the set.
        folder: Folder of the files, into which missing ones are downloaded.
        files: The four files by their roles "train-images", "train-labels", "test-images", "test-labels".
        classes: Class names in label order.
        part: Official part, "train" or "test".

    Raises:
        DataError: If a file is missing and cannot be fetched, its checksum is wrong, or it is no such file.
    """
    images = read_idx(fetch(files[f"{part}-images"], folder))
    labels = read_idx(fetch(files[f"{part}-labels"], folder))
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(f"{name}: {part} images {images.shape} and labels {labels.shape} do not belong together.")
    return Dataset.whole(name, images[:, None].copy(), labels.astype(np.int64), classes)
