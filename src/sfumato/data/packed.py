"""Read a known .npz file that a person has put under the data root: checked by its sha256, without pickles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfumato.core import archives
from sfumato.data.dataset import DataError
from sfumato.download import check_digest


@dataclass(frozen=True)
class LocalFile:
    """Name a file that has no public address.

    Arguments:
        name: Name of the file.
        sha256: Hex digest of its bytes.
    """

    name: str
    sha256: str


def read_npz(folder: Path, file: LocalFile, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read arrays of a known .npz file.

    Arguments:
        folder: Folder of the file.
        file: Name, address and checksums of the file.
        keys: Names of the arrays to read.

    Returns:
        The arrays by name.

    Raises:
        DataError: If the file is missing, another one, or lacks an array.
    """
    path = folder / file.name
    if not path.is_file():
        raise DataError(f"{path} is missing; it cannot be downloaded. Put it there or set SFUMATO_DATA to its root.")
    check_digest(path, "sha256", file.sha256, "Replace it.", DataError)
    found = archives.read_npz(path, keys, most=1 << 34, error=DataError)
    if lacking := [key for key in keys if key not in found]:
        raise DataError(f"{path} must hold {', '.join(keys)}; it lacks {', '.join(lacking)}.")
    return found
