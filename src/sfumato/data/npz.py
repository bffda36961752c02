"""npz: arrays of NumPy, images of any number of channels, with labels if there are any.

``images`` is uint8 (N, H, W), (N, H, W, C) or (N, C, H, W); ADM's samples, which call it ``arr_0`` and the labels
``arr_1``, load as they are, and so does an .npy file of images alone. Which axis holds the channels is decided, or
refused, by one rule (`data.arrays.as_images`). Arrays of Python objects are refused, so nothing of the file is
executed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sfumato.data.arrays import as_images, members, read_array, read_arrays
from sfumato.data.dataset import DataError, Dataset, numbered
from sfumato.data.splits import HELD_OUT, split_by_hash

ROLES = {"labels": ("labels", "arr_1", "label"), "classes": ("classes",)}


def npz(
    path: str | Path, *, split: str = "train", val: float = 0.0, test: float = HELD_OUT, labels: bool = True
) -> Dataset:
    """Load a .npz or .npy file of uint8 images, any number of channels, and labels.

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
    held = members(path)
    found = {"images": read_array(path)}
    if held and labels:
        for role, aliases in ROLES.items():
            there = sorted(held & set(aliases))
            if len(there) > 1:
                raise DataError(
                    f"{path} holds {' and '.join(there)}, and only one array can be its {role}. Name one "
                    f"{role}, and the others otherwise, or set data.labels=false."
                )
            if there:
                found[role] = read_arrays(path, (there[0],))[there[0]]
    images = as_images(found["images"], path).copy("C")
    given, classes = found.get("labels"), []
    if given is not None:
        if given.shape != (len(images),) or given.dtype.kind not in "iu" or given.min() < 0:
            raise DataError(f"{path}: labels are integers >= 0, one for each of {len(images)} images.")
        names = np.array(numbered(int(given.max()) + 1, f"The labels of {path}"))
        classes = list(map(str, np.atleast_1d(found.get("classes", names)).tolist()))
        given = given.astype(np.int64)
    whole = Dataset.whole(path.stem, images, given, classes)
    return split_by_hash(whole, split, val=val, test=test)
