"""Split by the image itself, so that every model of a project sees one and the same split.

The fraction of an image is the first 64 bits of its sha256 (shape and decoded pixels, see `hash_image`) divided by
2**64: uniform in [0, 1), the same on every machine, and independent of seeds, file names and file order. With u the
fraction,

    u < test                 -> test     (only where the source has no official test part)
    test <= u < test + val   -> val
    otherwise                -> train

Exact duplicates have one hash, so they always fall on the same side; growing a data set never moves an image from one
side to the other; raising `val` only moves images from train to val. Where an official test part exists, it *is* the
test set, and the rule divides the official train part alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np
import torch

from sfumato.data.dataset import SPLITS, Dataset

OFFICIAL = {"train": ("train", "training"), "val": ("validation", "valid", "val", "dev"), "test": ("test", "testing")}
"""Names that sources give to their splits."""
HELD_OUT = 0.2
"""Share of the images kept for testing where a source names no test part of its own."""


def fractions(hashes: np.ndarray) -> np.ndarray:
    """Map image hashes to uniform fractions.

    Arguments:
        hashes: uint8 (N, 32), rows of sha256.

    Returns:
        float64 (N,) in [0, 1).
    """
    words = np.ascontiguousarray(hashes[:, :8]).view(">u8").reshape(-1)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def split_by_hash(
    whole: Dataset, split: str, *, val: float = 0.0, test: float = 0.0, hashes: np.ndarray | None = None
) -> Dataset:
    """Choose one split of a dataset by the hash of each image.

    Arguments:
        whole: The images to divide.
        split: "train", "val", "test" or "all".
        val: Share held out for validation, in [0, 1).
        test: Share held out for testing, in [0, 1).
        hashes: uint8 (N, 32), what to decide by; None means the hashes of the images themselves. A source that
            resizes its images passes the hashes of the originals, so that the split is one for all sizes.

    Returns:
        The chosen side, in the source's order, with the rule written out.

    Raises:
        ValueError: If the split is unknown, a share is out of range, or the side asked for is empty by these shares.
    """
    check_split(split)
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise ValueError(f"The shares val and test lie in [0, 1) and leave something to train on; got {val}, {test}.")
    bounds = {"test": (0.0, test), "val": (test, test + val), "train": (test + val, 1.0), "all": (0.0, 1.0)}
    low, high = bounds[split]
    if low == high:
        raise ValueError(
            f"The {split} split of {whole.name} is empty: its share is 0. Train with {split}=0.1, or take train."
        )
    if (low, high) == (0.0, 1.0):
        return replace(whole, split=split)
    u = fractions(whole.image_hashes if hashes is None else hashes)
    chosen = torch.from_numpy((u >= low) & (u < high))
    return whole.subset(chosen, note=f"sha256 fraction in [{low:g}, {high:g})", split=split)


def split_official(read: Callable[[str], Dataset], split: str, *, val: float = 0.0) -> Dataset:
    """Choose one split of a source with an official train part and an official test part.

    Arguments:
        read: Maps "train" or "test" to that whole part; called only for the parts that are needed.
        split: "train", "val", "test", or "all": the train part followed by the test part.
        val: Share of the train part held out for validation, in [0, 1), by the hash of the image.

    Raises:
        ValueError: As `split_by_hash`.
    """
    check_split(split)
    if split == "test":
        return replace(read("test"), split="test", rule="official test part")
    train = replace(read("train"), rule="official train part")
    return join(train, read("test")) if split == "all" else split_by_hash(train, split, val=val)


def join(a: Dataset, b: Dataset) -> Dataset:
    """Put two parts of one source in a row; the indices of the second continue after those of the first."""
    labels, vector = (
        None if x is None or y is None else torch.cat([x, y]) for x, y in ((a.labels, b.labels), (a.vector, b.vector))
    )
    offset = int(a.indices.max()) + 1 if len(a) else 0
    return replace(
        a,
        images=torch.cat([a.images, b.images]),
        labels=labels,
        vector=vector,
        indices=torch.cat([a.indices, b.indices + offset]),
        split="all",
        rule="official train part, then official test part",
        left_out=tuple(dict.fromkeys(a.left_out + b.left_out)),
    )


def check_split(split: str) -> None:
    """Refuse a name that is no split."""
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}. Available: {', '.join(SPLITS)}.")


@dataclass(frozen=True)
class Piece:
    """Say which images of which part of a source make up a split.

    Attributes:
        part: Name of the part; "" for a source without parts.
        split: What to choose of it by the hash of each image.
        val: Share held out for validation.
        test: Share held out for testing.
    """

    part: str
    split: str
    val: float = 0.0
    test: float = 0.0

    @property
    def note(self) -> str:
        """What a rule says of it."""
        return f"official {self.part} split" if self.part and self.split == "all" else ""


def is_split(name: str) -> bool:
    """Return whether a folder or a part of this name is a split.

    >>> is_split("Valid"), is_split("cats")
    (True, False)
    """
    return any(name.lower() in names for names in OFFICIAL.values())


def pieces(parts: Collection[str], split: str, *, val: float, test: float) -> list[Piece]:
    """Find what makes up a split of a source.

    The official parts are kept: without an official test part the official validation part is the test set, and
    without either a share of the train part is, by the hash of each image. `val` holds out a share of the train part
    even where there is an official validation part.

    Arguments:
        parts: Names of the source's parts, such as "train" and "validation"; ("",) if it has none.
        split: "train", "val", "test" or "all".
        val: Share of the train part held out for validation, in [0, 1).
        test: The same for testing, where there is no official part for it.

    Returns:
        One piece; for "all" one for each official part.

    Raises:
        ValueError: If it is not clear which part is which.

    >>> pieces(("test", "train", "unsupervised"), "train", val=0.0, test=0.2)
    [Piece(part='train', split='all', val=0.0, test=0.0)]
    """
    check_split(split)
    val = 0.0 if split == "all" else val
    if len(parts) == 1:
        return [Piece(next(iter(parts)), split, val, test)]
    kinds = {kind: [part for part in parts if part.lower() in names] for kind, names in OFFICIAL.items()}
    rest = [part for part in parts if not is_split(part)]
    train = kinds["train"] or (rest if len(rest) == 1 else [])
    if len(train) != 1 or max(map(len, kinds.values())) > 1:
        raise ValueError(f"Of the splits {', '.join(parts)}, one must be called train, and at most one val and test.")
    held = kinds["val"] + kinds["test"]
    if split == "all":
        return [Piece(part, "all") for part in train + held]
    if split == "test" and held:
        return [Piece(held[-1], "all")]
    if split == "val" and kinds["val"] and not val:
        return [Piece(kinds["val"][0], "all")]
    return [Piece(train[0], "all" if split == "train" and held and not val else split, val, 0.0 if held else test)]
