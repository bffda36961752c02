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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Protocol

import numpy as np
import torch

from sfumato.core.errors import UnknownNameError, nearest, printable
from sfumato.data.dataset import DataError, Dataset
from sfumato.data.decoding import ALPHAS, CMYKS, FILTERS, crop_and_resize, decode
from sfumato.data.hashing import hash_image
from sfumato.data.listing import TABLE_FILE, DamagedArchiveError, Labels, Listing, labels_of, passed_over
from sfumato.data.splits import OFFICIAL, Piece, is_split, join, pieces, split_by_hash
from sfumato.data.told.attributes import rows_of
from sfumato.data.transforms import to_channels
from sfumato.progress import bar_of

SHOWN = 5  # bad files named in an error
THREADS = 4  # Pillow decodes outside the interpreter's lock
Numbers = Callable[[Sequence[str]], tuple[tuple[str, ...], torch.Tensor]]
"""Files by name -> the names of attributes, and their numbers, float32 (N, d)."""


@dataclass(frozen=True)
class Shape:
    """Say what every image is to become.

    Arguments:
        size: Side in pixels after the centred crop and resize; None leaves images as they are.
        channels: 1 or 3, and 2 or 4 with a kept alpha channel; None leaves them.
        filter: Pillow filter for resizing (see `crop_and_resize`).
        crop: Side of the centred square cut first; None means the largest if there is a size, and no cut without.
        alpha: Policy for transparency (see `decode`).
        cmyk: Policy for the inks of CMYK files (see `decode`).

    Raises:
        ValueError: If one of them is impossible.
    """

    size: int | None = None
    channels: int | None = None
    filter: str = "lanczos"
    crop: int | None = None
    alpha: str = "refuse"
    cmyk: str = "refuse"

    def __post_init__(self) -> None:
        policies = (
            ("filter", self.filter, FILTERS),
            ("alpha policy", self.alpha, ALPHAS),
            ("cmyk policy", self.cmyk, CMYKS),
        )
        for what, value, available in policies:
            if value not in available:
                raise UnknownNameError(nearest(what, value, available))
        allowed = (2, 4) if self.alpha == "keep" else (1, 3)
        if self.channels is not None and self.channels not in allowed:
            raise ValueError(
                f"Images are grey or colour: channels is 1 or 3, and with alpha=keep one more, 2 or 4; got "
                f"{self.channels} and alpha={self.alpha}."
            )
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
        if self.cmyk != "refuse":
            parts.append("CMYK converted")
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
        format: What kind of file it is, by its bytes.
        size: Width and height, "16x9", of an image that is bad only because most have others; "" elsewhere.
    """

    name: str
    pixels: np.ndarray | None = None
    digest: bytes = b""
    fault: str = ""
    remarks: tuple[str, ...] = field(default=())
    format: str = ""
    size: str = ""

    @property
    def reason(self) -> str:
        """Why the file is bad, without what is particular to it."""
        return "another size than most" if self.size else self.fault.partition(" (")[0].partition(";")[0]


def read_one(listing: Listing, name: str, shape: Shape) -> Found:
    """Read, decode and shape one file; a bad file is an outcome, not an exception.

    Raises:
        DamagedArchiveError: If the archive around it is damaged.
    """
    try:
        decoded = decode(listing.read(name), alpha=shape.alpha, cmyk=shape.cmyk)
        pixels, remarks = decoded.pixels, list(decoded.remarks)
        digest = hash_image(pixels)
        if shape.channels is not None and shape.channels != len(pixels):
            pixels = _in_channels(pixels, shape.channels, shape.alpha == "keep")
        side = shape.size or shape.crop
        if side is not None:
            pixels = crop_and_resize(pixels, side, crop=shape.crop, filter=shape.filter)
    except DamagedArchiveError:
        raise
    except (DataError, OSError) as error:
        return Found(name, fault=str(error))
    return Found(name, pixels, digest, remarks=tuple(remarks), format=decoded.format)


def _in_channels(pixels: np.ndarray, channels: int, keep: bool) -> np.ndarray:
    """Turn grey to colour or back, leaving a kept alpha channel as it is."""
    colours = to_channels(torch.from_numpy(pixels[: len(pixels) - keep])[None], channels - keep)[0].numpy()
    return np.concatenate([colours, pixels[-1:]]) if keep else colours


def read_all(listing: Listing, shape: Shape, names: tuple[str, ...] | None = None) -> list[Found]:
    """Read every file, several at a time, and mark as bad those that differ from the most frequent shape."""
    chosen = listing.names if names is None else names
    with ThreadPoolExecutor(THREADS) as pool:
        outcomes: Iterator[Found] = pool.map(lambda name: read_one(listing, name, shape), chosen)
        found = list(bar_of(len(chosen), "img", f"Reading {listing.path.name}", iterable=outcomes, leave=False))
    usual = usual_shape(f.pixels.shape for f in found if f.pixels is not None)
    return [f if f.pixels is None or f.pixels.shape == usual else unlike(f, f.pixels.shape, usual) for f in found]


def usual_shape(shapes: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the most frequent of some shapes, and of equally frequent ones the largest; () if there is none.

    >>> usual_shape([(1, 8, 8), (3, 8, 8), (1, 9, 9)])
    (3, 8, 8)
    """
    counts = Counter(shapes)
    return max(counts, key=lambda shape: (counts[shape], shape), default=())


def unlike(found: Found, shape: tuple[int, ...], usual: tuple[int, ...]) -> Found:
    """Return the outcome of a file whose image has another shape (C, H, W) than is usual: it is bad."""
    (c, h, w), (c0, h0, w0) = shape, usual
    faults = []
    if (h, w) != (h0, w0):
        faults.append(f"{w}x{h} pixels where most have {w0}x{h0}; a size resizes all of them")
    if c != c0:
        kinds = {1: "grey", 2: "grey with alpha", 3: "colour", 4: "colour with alpha"}
        faults.append(f"{kinds[c]} where most are {kinds[c0]}; a number of channels makes them equal")
    size = f"{w}x{h}" if (h, w) != (h0, w0) else ""
    return Found(found.name, fault=", ".join(faults), remarks=found.remarks, size=size)


def gather(
    parts: Mapping[str, Listing],
    name: str,
    shape: Shape,
    *,
    split: str,
    val: float,
    test: float,
    labels: bool,
    skip_bad: bool,
    numbers: Numbers | None = None,
) -> Dataset:
    """Read the files of a source and choose one split of it.

    Arguments:
        parts: The opened source by its official splits; under "" if it has none.
        name: Name of the dataset.
        shape: Size and channels that every image gets.
        split: "train", "val", "test" or "all".
        val: Share held out for validation, in [0, 1).
        test: Share held out for testing where there is no official split for it, in [0, 1).
        labels: Whether to look for labels.
        skip_bad: Whether to leave bad files out instead of failing.
        numbers: Names of attributes and their numbers, of files by name; None for none.

    Returns:
        The dataset; its indices count all image files of the source in the order of their names.

    Raises:
        DataError: If a file is bad and `skip_bad` is off, or none is good, or the split has no labels.
    """
    chosen = pieces(parts, split, val=val, test=test)
    usable, unlabelled = labelled_only(parts, chosen, labels)
    made = [_gathered(parts[piece.part], name, shape, piece, labels, skip_bad, numbers) for piece in usable]
    if len(parts) > 1:
        made = [data.subset(range(len(data)), note=piece.note) for data, piece in zip(made, usable)]
    unused = [part for part in parts if part and not is_split(part) and part not in {p.part for p in chosen}]
    told = [f"split {part}, which is neither train, val nor test" for part in unused]
    told += [f"split {part}, which has no labels" for part in unlabelled]
    whole = replace(reduce(join, made), split=split)
    return replace(whole, left_out=(*whole.left_out, *told))


def labelled_only(
    parts: Mapping[str, Listing], chosen: list[Piece], labels: bool
) -> tuple[list[Piece], tuple[str, ...]]:
    """Leave out the parts without labels of a source that has labels elsewhere.

    Returns:
        The other pieces, and the names of the parts left out.

    Raises:
        DataError: If nothing is left.
    """
    if not labels or len(parts) == 1:
        return chosen, ()
    known = {name for name, part in parts.items() if labels_of(part) is not None}
    usable = [piece for piece in chosen if piece.part in known] if known else chosen
    if not usable:
        other = next(kind for kind in ("val", "test", "train") if any(name.lower() in OFFICIAL[kind] for name in known))
        raise DataError(
            f"The {chosen[0].part} split of {parts[chosen[0].part].path} has no labels, and its "
            f"{', '.join(sorted(known))} split has. Use split {other}, or set data.labels=false."
        )
    return usable, tuple(piece.part for piece in chosen if piece not in usable)


def attributes_of(source: Listing) -> Numbers:
    """Read the attributes.csv of a whole source; return what gives names and numbers of some of its files.

    Raises:
        DataError: If there is none, or it does not fit the files.
    """
    where = f"{TABLE_FILE} of {source.path}"
    table = source.table()
    if table is None:
        raise DataError(f"{source.path} holds no {TABLE_FILE}, from which data.attributes are read. Put it at the top.")
    return lambda files: (table[0], rows_of(table, files, source.names, where))


def _gathered(
    listing: Listing, name: str, shape: Shape, piece: Piece, labels: bool, skip_bad: bool, numbers: Numbers | None
) -> Dataset:
    classes = labels_of(listing) if labels else None
    found = read_all(listing, shape)
    good = np.flatnonzero([f.pixels is not None for f in found])
    bad = [f.reason for f in found if f.pixels is None]
    found = good_ones(listing, found, skip_bad=skip_bad)
    hashes = np.frombuffer(b"".join(f.digest for f in found), dtype=np.uint8).reshape(-1, 32)
    whole = whole_of(listing, name, shape, stacked(found), classes, good, bad)
    if numbers is not None:
        names, vector = numbers([listing.names[i] for i in good])
        whole = replace(whole, attributes=names, vector=vector)
    return split_by_hash(whole, piece.split, val=piece.val, test=piece.test, hashes=hashes)


def whole_of(
    listing: Listing,
    name: str,
    shape: Shape,
    images: torch.Tensor,
    classes: Labels | None,
    good: np.ndarray,
    bad: Sequence[str],
) -> Dataset:
    """Return the dataset of all good files of a source.

    Arguments:
        listing: The opened folder or archive.
        name: Name of the dataset.
        shape: Size and channels that every image has got.
        images: uint8 (N, C, H, W), those of the good files in order.
        classes: Class of every file and names of classes; None for unlabelled images.
        good: int64 (N,), positions of the good files in the listing.
        bad: Why files were left out, one reason a file.

    Raises:
        DataError: If all images of a class are bad.
    """
    rule = "; ".join(filter(None, (shape.written(), f"{len(bad)} bad files skipped" if bad else "")))
    reasons = [f"{count:,} bad file{'s' * (count != 1)}: {reason}" for reason, count in Counter(bad).most_common()]
    told = tuple(filter(None, (*reasons, passed_over(listing))))
    if classes is None:
        return Dataset.whole(name, images, None, (), indices=good, rule=rule, left_out=told)
    labels = np.array([classes[0][listing.names[i]] for i in good])
    if lost := sorted(set(classes[0].values()) - set(labels.tolist())):
        raise DataError(f"All images of class {classes[1][lost[0]]} of {listing.path} are bad. Mend one, or remove it.")
    return Dataset.whole(name, images, labels, classes[1], indices=good, rule=rule, left_out=told)


def good_ones(listing: Listing, found: list[Found], *, skip_bad: bool) -> list[Found]:
    """Return the good outcomes, or refuse the bad ones by name.

    Raises:
        DataError: If a file is bad and `skip_bad` is off, or none is good.
    """
    bad = [f for f in found if f.pixels is None]
    if bad and (not skip_bad or len(bad) == len(found)):
        named = sorted(bad, key=lambda f: bool(f.size))[:SHOWN]
        listed = "".join(f"\n  {printable(f.name)}: {f.fault}" for f in named)
        more = f"\n  ... and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        sizes = sizes_of(bad)
        more += f"\n  other sizes than most: {sizes}; data.size=N (or --size N) resizes all of them" if sizes else ""
        are = "is" if len(bad) == 1 else "are"
        raise DataError(
            f"{len(bad)} of {len(found)} images in {listing.path} {are} bad:{listed}{more}\n"
            "`sfumato data check` lists them all; data.skip_bad=true (or --skip-bad) leaves them out."
        )
    if bad:
        warnings.warn(f"Skipped {len(bad)} of {len(found)} images in {listing.path}.", stacklevel=4)
    return [f for f in found if f.pixels is not None]


class Sized(Protocol):
    """Anything bad that says whether its size is why."""

    @property
    def size(self) -> str:
        """Width and height, or "" if the reason is another."""
        ...


def sizes_of(bad: Iterable[Sized]) -> str:
    """Say which sizes are unlike the most frequent one: how many images have each; "" if none is."""
    sizes = Counter(f.size for f in bad if f.size)
    told = ", ".join(f"{size} ({count:,})" for size, count in sizes.most_common(SHOWN))
    return told + (f" and {len(sizes) - SHOWN:,} more" if len(sizes) > SHOWN else "")


def stacked(found: list[Found]) -> torch.Tensor:
    """Stack the pixels of good outcomes into (N, C, H, W), emptying the list, so that they are not held twice."""
    shape = (len(found), *found[0].pixels.shape)  # type: ignore[union-attr]
    images = np.empty(shape, dtype=np.uint8)
    for i in range(len(found) - 1, -1, -1):
        images[i] = found.pop().pixels
    return torch.from_numpy(images)
