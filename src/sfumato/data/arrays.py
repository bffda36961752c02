"""Arrays in files, read with suspicion: the one reader of .npy and .npz, of images, labels or features.

What a file declares is checked before anything is unpacked: its kind (object arrays are never unpickled), its shape,
and how much larger it would become. An .npy file is mapped and never read whole.

    uint8 (N, H, W), (N, H, W, C) or (N, C, H, W)     images; which axis holds the channels is decided by `as_images`
    float32 or float64 (N, d)                         features
    integers (N,), text (K,)                          labels, names of classes
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfumato.core import archives
from sfumato.data.dataset import DataError
from sfumato.download import check_digest

MOST = 1 << 35  # bytes of an unpacked array: 32 GiB
NAMES = ("images", "features", "arr_0", "samples")  # of the array that is meant, where a file holds several
RULE = (
    "Images are uint8 (N, H, W), (N, H, W, C) or (N, C, H, W): the axis of at most 4 holds the channels, and where "
    "that does not decide, the other two are equal"
)


@dataclass(frozen=True)
class LocalFile:
    """Name a file that has no public address.

    Arguments:
        name: Name of the file.
        sha256: Hex digest of its bytes.
    """

    name: str
    sha256: str


def read_known(folder: Path, file: LocalFile, keys: tuple[str, ...]) -> Mapping[str, np.ndarray]:
    """Read arrays of a known .npz file that a person has put under the data root.

    Arguments:
        folder: Folder of the file.
        file: Its name and checksum.
        keys: Names of the arrays to read.

    Raises:
        DataError: If the file is missing, another one, or lacks an array.
    """
    path = folder / file.name
    if not path.is_file():
        raise DataError(f"{path} is missing; it cannot be downloaded. Put it there or set SFUMATO_DATA to its root.")
    check_digest(path, "sha256", file.sha256, "Replace it.", DataError)
    found = read_arrays(path, keys)
    if missing := [key for key in keys if key not in found]:
        raise DataError(f"{path} holds no array {', '.join(missing)}.")
    return found


def read_array(path: Path) -> np.ndarray:
    """Read the one array of images or features of a file.

    Arguments:
        path: An .npy file, which is read where it is used, or an .npz file.

    Raises:
        DataError: If the file is damaged, holds objects or several arrays, or would unpack to too much.
    """
    if not _is_zip(path):
        with archives.damage(path, "array", DataError):
            with path.open("rb") as file:
                shape, kind = archives.header_of(file)
            _check(path, path.name, shape, kind, available=path.stat().st_size)
            return np.load(path, mmap_mode="r", allow_pickle=False)
    held = members(path)
    wanted = held if len(held) == 1 else held & set(NAMES)
    if len(wanted) != 1:
        raise DataError(
            f"{path} must hold one array of images or features; it holds {', '.join(sorted(held)) or 'none'}. "
            f"Name the one to read {' or '.join(NAMES[:2])}."
        )
    return read_arrays(path, tuple(wanted)).popitem()[1]


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read arrays of an .npz file by name; names that it lacks are left out.

    Raises:
        DataError: If the file is damaged, or an array holds objects or would unpack to too much.
    """
    found = archives.read_npz(path, names, most=MOST, error=DataError)
    for name, array in found.items():
        _check(path, name, array.shape, array.dtype, available=MOST)
    return found


def members(path: Path) -> set[str]:
    """Return the names of the arrays of an .npz file; none of an .npy file.

    Raises:
        DataError: If it is damaged.
    """
    if not _is_zip(path):
        return set()
    with archives.opened(path, "array", DataError, archives.ARRAYS) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def as_images(array: np.ndarray, path: Path) -> np.ndarray:
    """Return uint8 images as (N, C, H, W), a view.

    Raises:
        DataError: If the kind or the shape is none of images, or the axis of the channels cannot be told.

    >>> as_images(np.zeros((5, 3, 32, 32), np.uint8), Path("a.npy")).shape
    (5, 3, 32, 32)
    >>> as_images(np.zeros((5, 4, 4, 3), np.uint8), Path("a.npy")).shape
    (5, 3, 4, 4)
    """
    shape = array.shape
    if array.dtype == np.uint8 and math.prod(shape):
        if array.ndim == 3 and (shape[2] > 4 or shape[1] == shape[2]):
            return array[:, None]
        if array.ndim == 4:
            first, last = shape[1] <= 4, shape[3] <= 4
            if first == last:
                first, last = shape[2] == shape[3] != shape[1], shape[1] == shape[2] != shape[3]
            if first != last:
                return array if first else array.transpose(0, 3, 1, 2)
    raise DataError(f"{path} holds {array.dtype} {shape}, which cannot be read as images. {RULE}.")


def _is_zip(path: Path) -> bool:
    """Return whether a file is an archive of arrays, by its first bytes and not by its name."""
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is not a readable array: it is no file.")
    with archives.damage(path, "array", DataError), path.open("rb") as file:
        return file.read(6) != b"\x93NUMPY"


def _check(path: Path, name: str, shape: tuple[int, ...], kind: np.dtype, available: int) -> None:
    if kind.hasobject or kind.kind not in "uifU" or (kind.kind == "f" and kind.itemsize < 4):
        raise DataError(
            f"{path} is refused: {name} has dtype {kind}. Images are uint8, features float32 or float64; "
            "objects of Python are not read."
        )
    archives.declared(path, name, shape, kind, available, MOST, DataError)
