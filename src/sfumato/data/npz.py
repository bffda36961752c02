"""npz: arrays of NumPy, images of any number of channels, with labels if there are any.

``images`` is uint8 (N, H, W, C) or (N, H, W); ADM's samples, which call it ``arr_0`` and the labels ``arr_1``, load as
they are. Arrays of Python objects are refused, so nothing of the file is executed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sfumato.core.archives import read_npz
from sfumato.data.dataset import DataError, Dataset
from sfumato.data.splits import HELD_OUT, split_by_hash

MOST = 1 << 35  # bytes of all arrays: 32 GiB
IMAGES, LABELS = ("images", "arr_0", "samples"), ("labels", "arr_1", "label")


def npz(
    path: str | Path, *, split: str = "train", val: float = 0.0, test: float = HELD_OUT, labels: bool = True
) -> Dataset:
    """Load a .npz file of uint8 images (N, H, W, C), any number of channels, and labels.

    Arguments:
        path: The file: arrays `images` and, for a labelled set, `labels` and `classes` (names).
        split: "train", "val", "test" or "all".
        val: Share held out for validation by the hash of the image, in [0, 1).
        test: Share held out for testing by the hash of the image, in [0, 1).
        labels: False ignores the labels.

    Returns:
        uint8 images (N, C, H, W).

    Raises:
        DataError: If the file is missing, damaged, or its arrays are not as above.
    """
    path = Path(path).expanduser()
    found = read_npz(path, (*IMAGES, *LABELS, "classes"), most=MOST, error=DataError)
    pixels = next((found[name] for name in IMAGES if name in found), None)
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or not len(pixels):
        told = "no such array" if pixels is None else f"{pixels.dtype} {pixels.shape}"
        raise DataError(f"{path} must hold uint8 images (N, H, W, C) under {' or '.join(IMAGES)}; got {told}.")
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    given = next((found[name] for name in LABELS if name in found), None) if labels else None
    classes: list[str] = []
    if given is not None:
        if given.shape != (len(images),) or given.dtype.kind not in "iu" or given.min() < 0:
            raise DataError(f"{path}: labels are integers >= 0, one for each of {len(images)} images.")
        given = given.astype(np.int64)
        classes = list(map(str, found.get("classes", np.arange(int(given.max()) + 1)).tolist()))
    whole = Dataset.whole(path.stem, images, given, classes)
    return split_by_hash(whole, split, val=val, test=test)
