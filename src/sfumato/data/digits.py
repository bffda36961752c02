"""digits: 1,797 grey 8x8 handwritten digits that ship with this package, for demos and tests without a network.

The images are the UCI test set `optdigits.tes` (also known as scikit-learn's `load_digits`); a pixel counts the ink,
0 to 16, in a 4x4 block of a 32x32 scan, here spread over the codes 0 to 255. The source's training set is not part of
it, so train and test are divided by the hash of the image: 1,437 and 360 with the default share.

References:
    Optical Recognition of Handwritten Digits (Alpaydin, Kaynak, 1998), UCI Machine Learning Repository, CC BY 4.0,
    https://doi.org/10.24432/C50P49
"""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np

from sfumato.data.dataset import Dataset
from sfumato.data.splits import HELD_OUT, split_by_hash

INK = 16  # the largest count


def digits(*, split: str = "train", val: float = 0.0, test: float = HELD_OUT) -> Dataset:
    """Load digits: 8x8 grey handwritten digits, 10 classes, 1,437 train and 360 test images, offline.

    Arguments:
        split: "train", "val", "test" or "all".
        val: Share held out for validation, in [0, 1).
        test: Share held out for testing, in [0, 1).

    Returns:
        uint8 images (N, 1, 8, 8), labelled; a count k becomes round(255 k / 16).

    >>> digits(), len(digits(split="test"))
    (Dataset('digits', train, 1,437 images 1x8x8, 10 classes), 360)
    """
    with as_file(files("sfumato.data") / "files" / "digits.npz") as path, np.load(path, allow_pickle=False) as stored:
        images, labels = stored["images"], stored["labels"]
    grey = np.rint(np.arange(INK + 1) * (255 / INK)).astype(np.uint8)
    whole = Dataset.whole("digits", grey[images][:, None], labels.astype(np.int64), "0123456789")
    return split_by_hash(whole, split, val=val, test=test)
