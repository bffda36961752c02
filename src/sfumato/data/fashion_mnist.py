"""Fashion-MNIST: 60,000 + 10,000 grey 28x28 pictures of ten kinds of garment, by Zalando Research; MIT licence.

References:
    Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms (Xiao, Rasul, Vollgraf, 2017),
    https://arxiv.org/abs/1708.07747; files and checksums: https://github.com/zalandoresearch/fashion-mnist
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sfumato.data.dataset import Dataset
from sfumato.data.idx import read_part
from sfumato.data.root import folder_of
from sfumato.data.splits import split_official
from sfumato.download import Remote

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
BASE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FILES = {
    "train-images": Remote(BASE + "train-images-idx3-ubyte.gz", 26421880, md5="8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    "train-labels": Remote(BASE + "train-labels-idx1-ubyte.gz", 29515, md5="25c81989df183df01b3e8a0aad5dffbe"),
    "test-images": Remote(BASE + "t10k-images-idx3-ubyte.gz", 4422102, md5="bef4ecab320f06d8554ea6380940ec79"),
    "test-labels": Remote(BASE + "t10k-labels-idx1-ubyte.gz", 5148, md5="bb300cfdad3c16e7a12a480ee83cd310"),
}


def fashion_mnist(*, split: str = "train", root: str | Path | None = None, val: float = 0.0) -> Dataset:
    """Load Fashion-MNIST: 28x28 grey garments, 10 classes, 60,000 train and 10,000 test images.

    Arguments:
        split: "train", "val", "test" or "all".
        root: Data root holding the folder "fashion-mnist"; None means SFUMATO_DATA, else the cache.
        val: Share of the train part held out for validation, in [0, 1).

    Returns:
        uint8 images (N, 1, 28, 28), labelled.

    Raises:
        DataError: If a file is missing and cannot be fetched, or its checksum is wrong.
    """
    name = "fashion-mnist"
    return split_official(partial(read_part, name, folder_of(name, root), FILES, CLASSES), split, val=val)
