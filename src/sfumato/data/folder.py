"""folder: any folder of images, with labels from its sub-folders.

A folder has no official test part, so the hash of each image divides it; generated samples to be judged are loaded
with ``split="all"``.
"""

from __future__ import annotations

from pathlib import Path

from sfumato.data.dataset import Dataset
from sfumato.data.gathering import Shape, gather
from sfumato.data.listing import open_listing
from sfumato.data.splits import HELD_OUT


def folder(
    path: str | Path,
    *,
    split: str = "train",
    val: float = 0.0,
    test: float = HELD_OUT,
    size: int | None = None,
    channels: int | None = None,
    filter: str = "lanczos",
    crop: int | None = None,
    alpha: str = "refuse",
    labels: bool = True,
    skip_bad: bool = False,
) -> Dataset:
    """Load a folder of images; labels from its sub-folders or its dataset.json.

    Arguments:
        path: The folder. Sub-folders are classes in the order of their names; without any it is unlabelled.
        split: "train", "val", "test" or "all".
        val: Share held out for validation by the hash of the image, in [0, 1).
        test: Share held out for testing by the hash of the image, in [0, 1).
        size: Side in pixels after a centred square crop and a resize; None requires images of one size.
        channels: 1 or 3; None requires that all are grey or all are colour.
        filter: Pillow filter: nearest, box, bilinear, hamming, bicubic or lanczos.
        crop: Side of the centred square to cut first; None means the largest.
        alpha: Treatment of transparency: "refuse", "black", "white" or "drop".
        labels: False ignores sub-folders and dataset.json.
        skip_bad: Whether to leave bad files out and count them, instead of failing.

    Returns:
        uint8 images (N, C, H, W).

    Raises:
        DataError: If the folder is missing or empty, or a file in it is bad.
    """
    shape = Shape(size, channels, filter, crop, alpha)
    name = Path(path).expanduser().resolve().name
    return gather(open_listing(path), name, shape, split=split, val=val, test=test, labels=labels, skip_bad=skip_bad)
