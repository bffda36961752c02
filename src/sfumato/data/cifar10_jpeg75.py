"""cifar10-jpeg75: LOSSY. All of CIFAR-10 as JPEG of quality 75 with halved colour resolution, about 30 dB PSNR.

Good for throughput, memory, pipelines and comparisons made entirely within it. A score or an accuracy on it must
never stand beside a published CIFAR-10 number: a ResNet-20 with 91.7% on CIFAR-10's test set has 81.0% on this one.

One file, ``cifar10-jpeg75.npz``, in the folder "cifar10" of the data root. Image i of a part is the JPEG file
``jpeg_header + data[offsets[i] : offsets[i + 1]] + FF D9``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from sfumato.data.arrays import LocalFile, read_known
from sfumato.data.cifar10 import joined
from sfumato.data.dataset import Dataset
from sfumato.data.decoding import decode
from sfumato.data.root import folder_of
from sfumato.data.splits import split_official

FILE = LocalFile("cifar10-jpeg75.npz", sha256="6dedf809e0efa0d7124c29a081ed580d425569a0dbeaa73e0f2acec3586476d6")
END_OF_IMAGE = b"\xff\xd9"


def cifar10_jpeg75(*, split: str = "train", root: str | Path | None = None, val: float = 0.0) -> Dataset:
    """Load LOSSY CIFAR-10: JPEG-compressed photographs, 10 classes, 50,000 train and 10,000 test images.

    Arguments:
        split: "train", "val", "test" or "all".
        root: Data root holding the folder "cifar10"; None means SFUMATO_DATA, else the cache.
        val: Share of the train part held out for validation, in [0, 1).

    Returns:
        uint8 images (N, 3, 32, 32), labelled; named "cifar10-jpeg75-LOSSY".

    Raises:
        DataError: If the file is missing or not the known one.
    """
    return split_official(partial(_part, folder_of("cifar10", root)), split, val=val)


def _part(folder: Path, part: str) -> Dataset:
    keys = ("jpeg_header", f"{part}_data", f"{part}_offsets", f"{part}_labels")
    stored = read_known(folder, FILE, keys)
    header, data, bounds = stored[keys[0]].tobytes(), stored[keys[1]].tobytes(), stored[keys[2]].tolist()
    images = np.empty((len(bounds) - 1, 3, 32, 32), dtype=np.uint8)  # filled in place: a list would be held beside it
    for image, a, b in zip(images, bounds[:-1], bounds[1:]):
        image[:] = decode(header + data[a:b] + END_OF_IMAGE).pixels
    return joined("cifar10-jpeg75-LOSSY", [(images, stored[keys[3]])])
