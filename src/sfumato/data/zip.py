"""zip: an archive of images with labels in dataset.json, the layout of StyleGAN and EDM, or in its folders.

The archive is read in memory, never extracted, and refused as a whole if a name in it points outside, repeats, or a
checksum is wrong (`sfumato.data.listing`). Folders called train, val and test are its splits, as in `folder`.
"""

from __future__ import annotations

from pathlib import Path

from sfumato.data.dataset import Dataset
from sfumato.data.gathering import Shape, attributes_of, gather
from sfumato.data.listing import open_listing, parts_of
from sfumato.data.splits import HELD_OUT


def zip(
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
    """Load a zip archive of images; labels from its dataset.json or its folders.

    Arguments:
        path: Path of the .zip file.
        split: "train", "val", "test" or "all".
        val: Share held out for validation by the hash of the image, in [0, 1).
        test: Share held out for testing by the hash of the image, in [0, 1).
        size: Side in pixels after a centred square crop and a resize; None requires images of one size.
        channels: 1 or 3 (2 or 4 with a kept alpha); None requires that all have the same.
        filter: Pillow filter: nearest, box, bilinear, hamming, bicubic or lanczos.
        crop: Side of the centred square to cut first; None means the largest.
        alpha: Treatment of transparency: "refuse", "black", "white", "drop", or "keep" as a channel.
        cmyk: Treatment of CMYK files: "refuse", or "convert" without a colour profile.
        labels: False ignores dataset.json and folders.
        skip_bad: Whether to leave bad files out and count them, instead of failing.
        attributes: Whether to read the numbers of attributes.csv, which stands beside the images.

    Returns:
        uint8 images (N, C, H, W).

    Raises:
        DataError: If the archive is missing, unsafe or damaged, or a file in it is bad.
    """
    shape, listing = Shape(size, channels, filter, crop, alpha, cmyk), open_listing(path)
    return gather(
        parts_of(listing), Path(path).stem, shape, split=split, val=val, test=test, labels=labels, skip_bad=skip_bad,
        numbers=attributes_of(listing) if attributes else None,
    )  # fmt: skip
