"""MNIST: 60,000 + 10,000 grey 28x28 handwritten digits.

Its authors state no licence with the files; it is usually given as CC BY-SA 3.0.

References:
    Gradient-based learning applied to document recognition (LeCun, Bottou, Bengio, Haffner, 1998),
    https://doi.org/10.1109/5.726791; files: http://yann.lecun.com/exdb/mnist/, mirrored by the PyTorch project.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sfumato.data.dataset import Dataset
from sfumato.data.idx import read_part
from sfumato.data.root import folder_of
from sfumato.data.splits import split_official
from sfumato.download import Remote

CLASSES = tuple("0123456789")
BASE = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FILES = {
    "train-images": Remote(BASE + "train-images-idx3-ubyte.gz", 9912422, md5="f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    "train-labels": Remote(BASE + "train-labels-idx1-ubyte.gz", 28881, md5="d53e105ee54ea40749a09fcbcd1e9432"),
    "test-images": Remote(BASE + "t10k-images-idx3-ubyte.gz", 1648877, md5="9fb629c4189551a2d022fa330f9573f3"),
    "test-labels": Remote(BASE + "t10k-labels-idx1-ubyte.gz", 4542, md5="ec29112dd5afa0611ce80d1b7f02629c"),
}


def mnist(*, split: str = "train", root: str | Path | None = None, val: float = 0.0) -> Dataset:
    """Load MNIST: 28x28 grey handwritten digits, 10 classes, 60,000 train and 10,000 test images.

    Arguments:
        split: "train", "val", "test" or "all".
        root: Data root holding the folder "mnist"; None means SFUMATO_DATA, else the cache.
        val: Share of the train part held out for validation, in [0, 1).

    Returns:
        uint8 images (N, 1, 28, 28), labelled.

    Raises:
        DataError: If a file is missing and cannot be fetched, or its checksum is wrong.
    """
    return split_official(partial(read_part, "mnist", folder_of("mnist", root), FILES, CLASSES), split, val=val)
