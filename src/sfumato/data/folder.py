"""folder: any folder of images, with labels from its sub-folders.

Folders called train, val (validation, valid, dev) and test at its top, or in its one sub-folder, are its official
splits, and the classes are the folders in them. Without such folders the hash of each image divides it; generated
samples to be judged are loaded with ``split="all"``.
"""

from __future__ import annotations

from pathlib import Path

from sfumato.data.dataset import Dataset
from sfumato.data.gathering import Shape, attributes_of, gather
from sfumato.data.listing import open_listing, parts_of
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
    cmyk: str = "refuse",
    labels: bool = True,
    skip_bad: bool = False,
    attributes: bool = False,
) -> Dataset:
    """Load a folder of images; labels from its sub-folders or its dataset.json.

    Arguments:
        path: The folder. Sub-folders are classes in the order of their names; without any it is unlabelled.
        split: "train", "val", "test" or "all".
        val: Share held out for validation by the hash of the image, in [0, 1).
        test: The same for testing, where no folder is a test or validation split.
        size: Side in pixels after a centred square crop and a resize; None requires images of one size.
        channels: 1 or 3 (2 or 4 with a kept alpha); None requires that all have the same.
        filter: Pillow filter: nearest, box, bilinear, hamming, bicubic or lanczos.
        crop: Side of the centred square to cut first; None means the largest.
        alpha: Treatment of transparency: "refuse", "black", "white", "drop", or "keep" as a channel.
        cmyk: Treatment of CMYK files: "refuse", or "convert" without a colour profile.
        labels: False ignores sub-folders and dataset.json.
        skip_bad: Whether to leave bad files out and count them, instead of failing.
        attributes: Whether to read the numbers of attributes.csv, which stands beside the images.

    Returns:
        uint8 images (N, C, H, W).

    Raises:
        DataError: If the folder is missing or empty, or a file in it is bad.
    """
    shape, listing = Shape(size, channels, filter, crop, alpha, cmyk), open_listing(path)
    name = Path(path).expanduser().resolve().name
    return gather(
        parts_of(listing), name, shape, split=split, val=val, test=test, labels=labels, skip_bad=skip_bad,
        numbers=attributes_of(listing) if attributes else None,
    )  # fmt: skip
