"""Arrays in files, read with suspicion: .npy and .npz of images or of features.

What a file declares is checked before anything is unpacked: its kind (object arrays are never unpickled), its shape,
and how much larger it would become.  An .npy file is mapped and never read whole.

    uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), C = 1 or 3     images
    float32 or float64 (N, d)                                     features
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from sfumato.core.archives import ARRAYS, damage, header_of, opened, read_member
from sfumato.data.dataset import DataError

MOST = 1 << 35  # bytes of an unpacked array: 32 GiB


def read_array(path: Path) -> np.ndarray:
    """Read the one array of a file.

    Arguments:
        path: Ends in .npy or .npz.

    Returns:
        The array; from an .npy file it is read where it is used.

    Raises:
        DataError: If the file is damaged, holds objects or several arrays, or would unpack to too much.
    """
    if path.suffix == ".npy":
        with damage(path, "array", DataError):
            with path.open("rb") as file:
                _check(path, path.name, *header_of(file), available=path.stat().st_size)
            return np.load(path, mmap_mode="r", allow_pickle=False)
    with opened(path, "array", DataError, ARRAYS) as archive:
        name = _only(archive, path)
        with archive.open(name) as file:
            shape, kind = header_of(file)
        _check(path, name, shape, kind, available=archive.getinfo(name).file_size)
        return read_member(archive, name, MOST, DataError)


def members(path: Path) -> set[str]:
    """Return the names of the arrays of an .npz file.

    Raises:
        DataError: If it is no such file.
    """
    with opened(path, ".npz file", DataError, ARRAYS) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def _only(archive: zipfile.ZipFile, path: Path) -> str:
    names = [name for name in archive.namelist() if name.endswith(".npy")]
    wanted = [name for name in names if name in ("images.npy", "features.npy", "arr_0.npy")]
    if len(names) != 1 and len(wanted) != 1:
        raise DataError(
            f"{path} must hold one array of images or features; it holds "
            f"{', '.join(sorted(names)) or 'none'}. Name the one to read 'images' or 'features'."
        )
    return wanted[0] if wanted else names[0]


def _check(path: Path, name: str, shape: tuple[int, ...], kind: np.dtype, available: int) -> None:
    if kind.hasobject or kind not in (np.uint8, np.float32, np.float64):
        raise DataError(
            f"{path} is refused: {name} has dtype {kind}. Images are uint8, features float32 or float64; "
            "object arrays are not read."
        )
    size = int(np.prod(shape, dtype=object)) * kind.itemsize
    if size > MOST or size > available:
        raise DataError(
            f"{path} is refused: {name} declares shape {shape}, {size:,} bytes, where the file has "
            f"{available:,} and at most {MOST:,} are read."
        )


def as_images(array: np.ndarray, path: Path) -> np.ndarray:
    """Return uint8 images as (N, C, H, W), a view.

    Raises:
        DataError: If the shape is none of images.
    """
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3):
        return array
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return array.transpose(0, 3, 1, 2)
    raise DataError(
        f"Images in {path} must have shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3; got {array.shape}."
    )
