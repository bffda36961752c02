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

from sfumato.data.dataset import DataError
from sfumato.metrics.statistics_file import header_of

MOST = 1 << 35  # bytes of an unpacked array: 32 GiB
RATIO = 200  # a deflated array of images or features shrinks by less


def read_array(path: Path) -> np.ndarray:
    """Read the one array of a file.

    Arguments:
        path: Ends in .npy or .npz.

    Returns:
        The array; from an .npy file it is read where it is used.

    Raises:
        DataError: If the file is damaged, holds objects or several arrays, or would unpack to too much.
    """
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                _check(path, path.name, *header_of(file), available=path.stat().st_size)
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with zipfile.ZipFile(path) as archive:
            name = _only(archive, path)
            entry = archive.getinfo(name)
            with archive.open(entry) as file:
                shape, kind = header_of(file)
            _check(path, name, shape, kind, available=entry.file_size)
            if entry.file_size > RATIO * max(entry.compress_size, 1 << 16):
                raise DataError(
                    f"{path} is refused: {name} unpacks from {entry.compress_size:,} to "
                    f"{entry.file_size:,} bytes, more than {RATIO} times. It was not unpacked."
                )
            with archive.open(entry) as file:
                return np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a readable array: {error}.") from error


def members(path: Path) -> set[str]:
    """Return the names of the arrays of an .npz file.

    Raises:
        DataError: If it is no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a readable .npz file: {error}.") from error


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
