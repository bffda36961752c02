"""Statistics of features in a file, read with suspicion.

A file holds `mean` (d,), `cov` (d, d), `n` and `about` (JSON: extractor, weights hash, content hash of the images).
Files of other tools hold `mu` and `sigma` only; they are read too, but without a number of images and a content hash a
score against them is flagged "unverified reference".

What a file declares is checked before anything is unpacked: the kind and shape of each array, and its unpacked size,
which may not exceed what d numbers need.  Object arrays are never unpickled.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfumato.core.archives import ARRAYS, header_of, opened, read_member
from sfumato.core.reading import parse_json
from sfumato.core.writing import replacing
from sfumato.metrics.protocol import JSON, canonical
from sfumato.metrics.statistics import Moments

KIND = "statistics file (.npz)"
HEADER = 4096  # generous room for the header of one array
ABOUT = 1 << 16  # bytes of facts
LARGEST = float(np.finfo(np.float32).max)  # feature


class StatisticsError(ValueError):
    """A statistics file is not what it should be."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and covariance of features, and where they came from.

    Arguments:
        mean: float64 (d,).
        cov: float64 (d, d), symmetric.
        n: Number of images; 0 if the file does not say.
        about: Facts recorded with them; {} if there are none.
    """

    mean: np.ndarray
    cov: np.ndarray
    n: int
    about: JSON

    @property
    def verified(self) -> bool:
        """Whether the number of images and their content are known."""
        return self.n > 0 and bool(self.about.get("content_hash"))


def save_statistics(path: Path, moments: Moments, about: JSON) -> None:
    """Write the mean and covariance of `moments` with facts about them, replacing the file in one step."""
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, mean=moments.mean, cov=moments.cov, n=np.int64(moments.n), about=np.array(canonical(about)))


def facts_of(path: Path) -> JSON:
    """Read what a statistics file says about itself; {} if it says nothing.

    Raises:
        StatisticsError: If it is no such file.
    """
    with opened(path, KIND, StatisticsError, ARRAYS) as archive:
        return _about(archive, path)


def load_statistics(path: Path, dimension: int) -> Statistics:
    """Read a statistics file for an extractor of `dimension` features.

    Raises:
        StatisticsError: If it is no such file, declares other arrays or too large ones, holds NaN or infinity, or a
            covariance that is not symmetric or has a negative eigenvalue.
    """
    d = dimension
    with opened(path, KIND, StatisticsError, ARRAYS) as archive:
        names = set(archive.namelist())
        mean_name, cov_name = ("mean", "cov") if "mean.npy" in names else ("mu", "sigma")
        mean = _array(archive, mean_name, (d,), path)
        cov = _array(archive, cov_name, (d, d), path)
        n = int(_array(archive, "n", (), path)) if "n.npy" in names else 0
        about = _about(archive, path)
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise StatisticsError(f"The statistics in {path} hold NaN or infinity.")
    if n < 0 or n == 1:
        raise StatisticsError(f"The statistics in {path} say they are of n = {n} images; a covariance needs 2.")
    size = float(np.abs(cov).max())
    if max(size, float(np.abs(mean).max())) > LARGEST:
        raise StatisticsError(f"The statistics in {path} hold numbers that no features in float32 can have.")
    if np.abs(cov - cov.T).max() > 1e-6 * size:
        raise StatisticsError(f"The covariance in {path} is not symmetric.")
    cov = (cov + cov.T) / 2
    lowest = float(np.linalg.eigvalsh(cov)[0])
    if lowest < -1e-6 * size * d:
        raise StatisticsError(f"The covariance in {path} has the negative eigenvalue {lowest:.3g}.")
    return Statistics(mean, cov, n, about)


def _about(archive: zipfile.ZipFile, path: Path) -> JSON:
    """Return the facts that a file holds about itself; {} if it holds none."""
    if "about.npy" not in archive.namelist():
        return {}
    text = str(_array(archive, "about", (), path))
    return parse_json(text, f"{path} is not a readable {KIND}: about", error=StatisticsError)


def _array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    member = f"{name}.npy"
    if member not in archive.namelist():
        raise StatisticsError(f"{path} holds no array '{name}'; it has {', '.join(sorted(archive.namelist()))}.")
    limit = HEADER + (ABOUT if name == "about" else 8 * int(np.prod(shape)))
    declared = archive.getinfo(member).file_size
    if declared > limit:
        raise StatisticsError(
            f"Array '{name}' in {path} unpacks to {declared:,} bytes; at most {limit:,} are needed "
            f"for shape {shape}. It was not unpacked."
        )
    with archive.open(member) as file:
        try:
            found, kind = header_of(file)
        except ValueError as error:
            raise StatisticsError(f"Array '{name}' in {path} has a damaged header: {error}.") from error
    wanted = {"n": "iu", "about": "U"}.get(name, "f")
    if kind.kind not in wanted:
        raise StatisticsError(f"Array '{name}' in {path} has dtype {kind}; object and other arrays are not read.")
    if found != shape:
        raise StatisticsError(f"Array '{name}' in {path} has shape {found}, the extractor needs {shape}.")
    array = read_member(archive, member, limit, StatisticsError)
    return array.astype(np.float64) if wanted == "f" else array
