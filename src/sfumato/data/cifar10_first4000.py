"""cifar10-first4000: PARTIAL. The first 4,000 training images of CIFAR-10 (start of data_batch_1), pixel-lossless.

One file, ``cifar10-train-first4000.npz``, in the folder "cifar10" of the data root: ``images`` (4000, 32, 32, 3) and
``labels`` (4000,), uint8. It has no official test part; scores on it are not scores on CIFAR-10.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sfumato.data.arrays import LocalFile, read_known
from sfumato.data.cifar10 import joined
from sfumato.data.dataset import Dataset
from sfumato.data.root import folder_of
from sfumato.data.splits import HELD_OUT, split_by_hash

FILE = LocalFile(
    "cifar10-train-first4000.npz", sha256="f21ba659b327871ec330654ccdc95e0da52b1b39c04c467a581440516466148c"
)


def cifar10_first4000(
    *, split: str = "train", root: str | Path | None = None, val: float = 0.0, test: float = HELD_OUT
) -> Dataset:
    """Load PARTIAL CIFAR-10: its first 4,000 training images, lossless, divided by the hash of the image.

    Arguments:
        split: "train", "val", "test" or "all".
        root: Data root holding the folder "cifar10"; None means SFUMATO_DATA, else the cache.
        val: Share held out for validation, in [0, 1).
        test: Share held out for testing, in [0, 1).

    Returns:
        uint8 images (N, 3, 32, 32), labelled; named "cifar10-first4000-PARTIAL".

    Raises:
        DataError: If the file is missing or not the known one.
    """
    stored = read_known(folder_of("cifar10", root), FILE, ("images", "labels"))
    images = np.ascontiguousarray(stored["images"].transpose(0, 3, 1, 2))
    whole = joined("cifar10-first4000-PARTIAL", [(images, stored["labels"])])
    return split_by_hash(whole, split, val=val, test=test)
