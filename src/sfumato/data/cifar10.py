"""CIFAR-10: 50,000 + 10,000 colour 32x32 photographs of ten kinds of thing.

The official Python batches are read from ``cifar-10-python.tar.gz`` or from the folder ``cifar-10-batches-py`` it
unpacks to. They are pickles, and none of their code is executed (`sfumato.data.unpickle`). No licence is stated by
their author.

References:
    Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009),
    https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf; files: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import tarfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np

from sfumato.data.dataset import DataError, Dataset
from sfumato.data.root import fetch, folder_of
from sfumato.data.splits import split_official
from sfumato.data.unpickle import MAX_BYTES, read_plain
from sfumato.download import Remote, check_digest

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
ARCHIVE = Remote(
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", 170498071, md5="c58f30108f718f92721af3b95e74349a"
)
UNPACKED = "cifar-10-batches-py"
BATCHES = {
    "train": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
}  # md5 of each unpacked file


def cifar10(*, split: str = "train", root: str | Path | None = None, val: float = 0.0) -> Dataset:
    """Load CIFAR-10: 32x32 colour photographs, 10 classes, 50,000 train and 10,000 test images.

    Arguments:
        split: "train", "val", "test" or "all".
        root: Data root holding the folder "cifar10"; None means SFUMATO_DATA, else the cache.
        val: Share of the train part held out for validation, in [0, 1).

    Returns:
        uint8 images (N, 3, 32, 32), labelled.

    Raises:
        DataError: If a file is missing and cannot be fetched, or is not the official one.
    """
    return split_official(partial(_part, folder_of("cifar10", root)), split, val=val)


def _part(folder: Path, part: str) -> Dataset:
    unpacked = folder / UNPACKED
    if unpacked.is_dir():
        batches = [read_batch(_verified(unpacked / name, md5), name) for name, md5 in BATCHES[part].items()]
    else:
        batches = read_archive(fetch(ARCHIVE, folder), list(BATCHES[part]))
    return joined("cifar10", batches)


def joined(name: str, batches: list[tuple[np.ndarray, np.ndarray]]) -> Dataset:
    """Put batches of (images (n, 3, 32, 32) uint8, labels (n,)) in a row as one dataset."""
    images, labels = batches[0] if len(batches) == 1 else map(np.concatenate, zip(*batches))
    return Dataset.whole(name, images, labels.astype(np.int64), CLASSES)


def read_batch(content: bytes, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one pickled batch.

    Arguments:
        content: The bytes of the file.
        what: Name of the file in messages.

    Returns:
        Images uint8 (n, 3, 32, 32) and labels int64 (n,).

    Raises:
        DataError: If it is no such batch.
    """
    stored = read_plain(content, what)
    if isinstance(stored, dict):  # Python 3 writes byte strings as bytes
        stored = {key.decode() if isinstance(key, bytes) else key: value for key, value in stored.items()}
    match stored:
        case {"data": np.ndarray() as data, "labels": list(labels)}:
            pass
        case _:
            raise DataError(f"{what} is not a CIFAR-10 batch: it lacks an array 'data' or a list 'labels'.")
    fits = data.shape == (len(labels), 3 * SIDE * SIDE)
    if not fits or not all(isinstance(k, int) and 0 <= k < len(CLASSES) for k in labels):
        raise DataError(f"{what} is not a CIFAR-10 batch: data {data.shape}, {len(labels)} labels.")
    return data.reshape(-1, 3, SIDE, SIDE), np.array(labels, dtype=np.int64)


def read_archive(path: Path, names: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read batches straight out of the .tar.gz; nothing is extracted to disk.

    Raises:
        DataError: If the archive is damaged or lacks a batch.
    """
    wanted = {f"{UNPACKED}/{name}": name for name in names}
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name in wanted and member.isreg() else None
                if file is not None:
                    found[wanted[member.name]] = read_batch(file.read(MAX_BYTES + 1), f"{path}:{member.name}")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} is not a whole .tar.gz archive ({error}). Delete it to download it again.") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}.")
    return [found[name] for name in names]


def _verified(path: Path, md5: str) -> bytes:
    remedy = f"Delete the folder {path.parent} to have CIFAR-10 downloaded again."
    if not path.is_file():
        raise DataError(f"{path} is missing. {remedy}")
    check_digest(path, "md5", md5, remedy, DataError)
    return path.read_bytes()
