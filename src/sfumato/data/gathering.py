"""Gather the images of a folder or an archive into one dataset.

Every file is decoded (`sfumato.data.decoding`), hashed as it is, then cropped, resized and converted. The split is
decided by the hash of the *original* pixels, so one image is in the same split at every size. By default one bad file
stops the loading and the message names the first ones; `skip_bad` leaves them out, counts them and says so in the
dataset's rule. Without a `size` all images must have one size, without `channels` one number of channels: the most
frequent, and files that differ are bad.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from sfumato.core.find import UnknownNameError, nearest
from sfumato.data.dataset import DataError, Dataset
from sfumato.data.decoding import ALPHAS, FILTERS, crop_and_resize, decode
from sfumato.data.hashing import hash_image
from sfumato.data.listing import DamagedArchiveError, Labels, Listing, labels_of
from sfumato.data.splits import split_by_hash
from sfumato.data.transforms import to_channels

SHOWN = 5  # bad files named in an error
THREADS = 4  # Pillow decodes outside the interpreter's lock


@dataclass(frozen=True)
class Shape:
    """Say what every image is to become.

    Arguments:
        size: Side in pixels after the centred crop and resize; None leaves images as they are.
        channels: 1 or 3; None leaves them.
        filter: Pillow filter for resizing (see `crop_and_resize`).
        crop: Side of the centred square cut first; None means the largest if there is a size, and no cut without.
        alpha: Policy for transparency (see `decode`).

    Raises:
        ValueError: If one of them is impossible.
    """

    size: int | None = None
    channels: int | None = None
    filter: str = "lanczos"
    crop: int | None = None
    alpha: str = "refuse"

    def __post_init__(self) -> None:
        for what, value, available in (("filter", self.filter, FILTERS), ("alpha policy", self.alpha, ALPHAS)):
            if value not in available:
                raise UnknownNameError(nearest(what, value, available))
        if self.channels not in (None, 1, 3):
            raise ValueError(f"Images are grey or colour: channels is 1 or 3; got {self.channels}.")
        for what, side in (("size", self.size), ("crop", self.crop)):
            if side is not None and side < 1:
                raise ValueError(f"A {what} is at least 1 pixel; got {side}.")

    def written(self) -> str:
        """Return the change in words, for a rule; "" if there is none."""
        parts = []
        if self.size or self.crop:
            parts.append(f"centre crop{'' if self.crop is None else f' {self.crop}'}")
        if self.size:
            parts.append(f"{self.filter} to {self.size}")
        if self.channels is not None:
            parts.append(f"{self.channels} channels")
        if self.alpha != "refuse":
            parts.append(f"alpha {self.alpha}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Found:
    """Hold one file's outcome: its pixels and the hash of its original ones, or why it is bad.

    Arguments:
        name: Name of the file in its source.
        pixels: uint8 (C, H, W), or None if it is bad.
        digest: sha256 of the original pixels, or b"".
        fault: Why the file is bad, or "".
        remarks: Unusual properties that were converted without loss.
    """

    name: str
    pixels: np.ndarray | None = None
    digest: bytes = b""
    fault: str = ""
    remarks: tuple[str, ...] = field(default=())


def read_one(listing: Listing, name: str, shape: Shape) -> Found:
    """Read, decode and shape one file; a bad file is an outcome, not an exception.

    Raises:
        DamagedArchiveError: If the archive around it is damaged.
    """
    try:
        decoded = decode(listing.read(name), alpha=shape.alpha)
        pixels, remarks = decoded.pixels, list(decoded.remarks)
        digest = hash_image(pixels)
        if shape.channels is not None and shape.channels != len(pixels):
            pixels = to_channels(torch.from_numpy(pixels)[None], shape.channels)[0].numpy()
        side = shape.size or shape.crop
        if side is not None:
            pixels = crop_and_resize(pixels, side, crop=shape.crop, filter=shape.filter)
    except DamagedArchiveError:
        raise
    except (DataError, OSError) as error:
        return Found(name, fault=str(error))
    return Found(name, pixels, digest, remarks=tuple(remarks))


def read_all(listing: Listing, shape: Shape, names: tuple[str, ...] | None = None) -> list[Found]:
    """Read every file, several at a time, and mark as bad those that differ from the most frequent shape."""
    chosen = listing.names if names is None else names
    with ThreadPoolExecutor(THREADS) as pool:
        outcomes: Iterator[Found] = pool.map(lambda name: read_one(listing, name, shape), chosen)
        found = list(tqdm(outcomes, total=len(chosen), desc=f"Reading {listing.path.name}", disable=None, leave=False))
    shapes = Counter(f.pixels.shape for f in found if f.pixels is not None)
    if len(shapes) <= 1:
        return found
    usual = max(shapes, key=lambda s: (shapes[s], s))
    return [f if f.pixels is None or f.pixels.shape == usual else _unlike(f, f.pixels.shape, usual) for f in found]


def _unlike(found: Found, shape: tuple[int, ...], usual: tuple[int, ...]) -> Found:
    (c, h, w), (c0, h0, w0) = shape, usual
    faults = []
    if (h, w) != (h0, w0):
        faults.append(f"{w}x{h} pixels where most have {w0}x{h0}; size= makes them one")
    if c != c0:
        kinds = {1: "grey", 3: "colour"}
        faults.append(f"{kinds[c]} where most are {kinds[c0]}; channels= makes them one")
    return Found(found.name, fault=", ".join(faults), remarks=found.remarks)


def gather(
    listing: Listing, name: str, shape: Shape, *, split: str, val: float, test: float, labels: bool, skip_bad: bool
) -> Dataset:
    """Read a folder or an archive and choose one split of it.

    Arguments:
        listing: The opened folder or archive.
        name: Name of the dataset.
        shape: Size and channels that every image gets.
        split: "train", "val", "test" or "all".
        val: Share held out for validation, in [0, 1).
        test: Share held out for testing, in [0, 1).
        labels: Whether to look for labels.
        skip_bad: Whether to leave bad files out instead of failing.

    Returns:
        The dataset; its indices count all image files of the source in the order of their names.

    Raises:
        DataError: If a file is bad and `skip_bad` is off, or none is good.
    """
    classes = labels_of(listing) if labels else None
    found = read_all(listing, shape)
    good = np.flatnonzero([f.pixels is not None for f in found])
    skipped = len(found) - len(good)
    found = good_ones(listing, found, skip_bad=skip_bad)
    hashes = np.frombuffer(b"".join(f.digest for f in found), dtype=np.uint8).reshape(-1, 32)
    whole = whole_of(listing, name, shape, stacked(found), classes, good, skipped)
    return split_by_hash(whole, split, val=val, test=test, hashes=hashes)


def whole_of(
    listing: Listing, name: str, shape: Shape, images: torch.Tensor, classes: Labels | None, good: np.ndarray, bad: int
) -> Dataset:
    """Return the dataset of all good files of a source.

    Arguments:
        listing: The opened folder or archive.
        name: Name of the dataset.
        shape: Size and channels that every image has got.
        images: uint8 (N, C, H, W), those of the good files in order.
        classes: Class of every file and names of classes; None for unlabelled images.
        good: int64 (N,), positions of the good files in the listing.
        bad: Number of files left out.
    """
    rule = "; ".join(filter(None, (shape.written(), f"{bad} bad files skipped" if bad else "")))
    if classes is None:
        return Dataset.whole(name, images, None, (), indices=good, rule=rule)
    labels = np.array([classes[0][listing.names[i]] for i in good])
    return Dataset.whole(name, images, labels, classes[1], indices=good, rule=rule)


def good_ones(listing: Listing, found: list[Found], *, skip_bad: bool) -> list[Found]:
    """Return the good outcomes, or refuse the bad ones by name.

    Raises:
        DataError: If a file is bad and `skip_bad` is off, or none is good.
    """
    bad = [f for f in found if f.pixels is None]
    if bad and (not skip_bad or len(bad) == len(found)):
        listed = "".join(f"\n  {f.name}: {f.fault}" for f in bad[:SHOWN])
        more = f"\n  ... and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise DataError(
            f"{len(bad)} of {len(found)} images in {listing.path} are bad:{listed}{more}\n"
            "`sfumato data check` lists them all; skip_bad=True leaves them out."
        )
    if bad:
        warnings.warn(f"Skipped {len(bad)} of {len(found)} images in {listing.path}.", stacklevel=4)
    return [f for f in found if f.pixels is not None]


def stacked(found: list[Found]) -> torch.Tensor:
    """Stack the pixels of good outcomes into (N, C, H, W), emptying the list, so that they are not held twice."""
    shape = (len(found), *found[0].pixels.shape)  # type: ignore[union-attr]
    images = np.empty(shape, dtype=np.uint8)
    for i in range(len(found) - 1, -1, -1):
        images[i] = found.pop().pixels
    return torch.from_numpy(images)
