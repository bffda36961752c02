"""A dataset is a value: uint8 images, labels, where they came from, and hashes that say exactly which images they are.

Three identities are kept apart, because confusing them has spoilt published comparisons:

* ``image_hashes`` - one sha256 per image over its shape and decoded pixels, never over a file or a name;
* ``content_hash`` - sha256 over the *sorted* image hashes, so the order of files, their names, their codec and their
  labels do not matter, and one changed pixel does;
* ``index_hash``  - sha256 over the sorted indices into the source's official order: which part of the source this is,
  to be read beside ``name`` and ``rule``.

Small data lives whole in memory as one uint8 tensor (N, C, H, W). Pixels become floats in [-1, 1] in one place only
(`sfumato.data.loader`), by ``x0 = u / 127.5 - 1``.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sfumato.data.hashing import hash_images
from sfumato.data.order import ranking


class DataError(ValueError):
    """Say that data is missing, corrupt or not what it claims to be, and what to do about it."""


SPLITS = ("train", "val", "test", "all")
MOST_CLASSES = 65_536


def numbered(count: int, what: str) -> list[str]:
    """Return names of classes that are known by their numbers only.

    Arguments:
        count: One more than the largest number, which a file says.
        what: The labels, for the message.

    Raises:
        DataError: If they are more than can be told apart.
    """
    if count > MOST_CLASSES:
        raise DataError(
            f"{what} go up to {count - 1:,}, and a dataset has at most {MOST_CLASSES:,} classes. Number the classes "
            "0, 1, 2, ..."
        )
    return [str(k) for k in range(count)]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Hold images with their labels and provenance.

    Arguments:
        name: Name of the dataset, e.g. "fashion-mnist".
        images: uint8 (N, C, H, W) on the CPU.
        labels: int64 (N,) with values in [0, len(classes)), or None if unlabelled.
        classes: Class names in label order; () if unlabelled.
        split: "train", "val", "test" or "all".
        indices: int64 (N,), position of each image in the source's official order (of its train part or test part).
        rule: How this part was chosen from the source, in words that a protocol can carry.
        left_out: What the source holds beside these images, and why it is not among them, in words.
        attributes: Names of numbers that are known of the images; () for none.
        vector: Those numbers as they were given, float32 (N, d), NaN where one is not known; None for none.
        beside: What a model is told beside each image, uint8 (N, c, h, w); None for nothing (`data.told.beside`).
        condition: What kind of image that is, as `data.condition` names it.

    Raises:
        ValueError: If a shape, dtype, label or split is not as above.

    >>> d = Dataset("ramp", torch.arange(8, dtype=torch.uint8).reshape(2, 1, 2, 2), None, (), "all", torch.arange(2))
    >>> len(d), d.shape
    (2, (1, 2, 2))
    """

    name: str
    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    split: str
    indices: Tensor
    rule: str = ""
    left_out: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    vector: Tensor | None = None
    beside: Tensor | None = None
    condition: str = "none"

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4 or images.device.type != "cpu":
            raise ValueError(
                f"Images of a Dataset are uint8 (N, C, H, W) on the CPU; got {images.dtype} {tuple(images.shape)} "
                f"on {images.device}."
            )
        if self.indices.shape != (len(images),) or self.indices.dtype != torch.int64:
            raise ValueError(
                f"Indices are int64 ({len(images)},), one for each image; got {self.indices.dtype} "
                f"{tuple(self.indices.shape)}."
            )
        if self.split not in SPLITS:
            raise ValueError(f"A split is one of {', '.join(SPLITS)}; got {self.split!r}.")
        if labels is None:
            if self.classes:
                raise ValueError(f"An unlabelled dataset has no classes; got {len(self.classes)}. Pass classes=().")
            return
        if labels.shape != (len(images),) or labels.dtype != torch.int64:
            raise ValueError(
                f"Labels are int64 ({len(images)},), one for each image; got {labels.dtype} {tuple(labels.shape)}."
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            raise ValueError(
                f"Labels of {self.name} must lie in [0, {len(self.classes)}), the number of class names; got "
                f"{int(labels.min())} to {int(labels.max())}."
            )

    @classmethod
    def whole(
        cls,
        name: str,
        images: Tensor | np.ndarray,
        labels: Tensor | np.ndarray | None,
        classes: Sequence[str],
        *,
        indices: Tensor | np.ndarray | None = None,
        rule: str = "",
        left_out: tuple[str, ...] = (),
    ) -> Dataset:
        """Make the dataset of a whole source, which is then split.

        Arguments:
            name: Name of the dataset.
            images: uint8 (N, C, H, W).
            labels: Integers (N,), or None.
            classes: Class names in label order; () without labels.
            indices: int64 (N,), position of each image in the source; None for 0, 1, ...
            rule: How the images were changed, in words.
            left_out: What of the source is not among them, and why, in words.
        """
        number = None if labels is None else torch.as_tensor(labels).to(torch.int64)
        where = torch.arange(len(images)) if indices is None else torch.as_tensor(indices)
        return cls(name, torch.as_tensor(images), number, tuple(classes), "all", where, rule, left_out)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        c, h, w = self.shape
        kinds = f"{len(self.classes)} classes" if self.labels is not None else "unlabelled"
        return f"Dataset({self.name!r}, {self.split}, {len(self):,} images {c}x{h}x{w}, {kinds})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image."""
        c, h, w = self.images.shape[1:]
        return c, h, w

    @cached_property
    def image_hashes(self) -> np.ndarray:
        """The sha256 of every image, uint8 (N, 32)."""
        return hash_images(self.images)

    @cached_property
    def content_hash(self) -> str:
        """The sha256 (hex) over the sorted image hashes: equal for equal sets of pixels, in any order."""
        return hashlib.sha256(b"".join(sorted(map(bytes, self.image_hashes)))).hexdigest()

    @cached_property
    def index_hash(self) -> str:
        """The sha256 (hex) over the sorted indices as little-endian int64."""
        return hashlib.sha256(np.sort(self.indices.numpy()).astype("<i8").tobytes()).hexdigest()

    def identity(self) -> dict[str, str | int | list[int]]:
        """Return what says exactly which images these are, ready for JSON: for protocols, checkpoints and logs."""
        return {
            "name": self.name,
            "split": self.split,
            "rule": self.rule,
            "n": len(self),
            "shape": list(self.shape),
            "content_hash": self.content_hash,
            "index_hash": self.index_hash,
        }

    def subset(
        self, where: Tensor | np.ndarray | Sequence[int], *, note: str = "", split: str | None = None
    ) -> Dataset:
        """Keep some images, in the order given.

        Arguments:
            where: A boolean mask (N,) or integer positions (M,) in [0, N).
            note: Description of what was kept, appended to the rule.
            split: Name of the new split; None keeps the old one.

        Returns:
            A dataset of the chosen images with the same classes.

        Raises:
            ValueError: If a mask has another length, or a position is out of range.
        """
        chosen = torch.as_tensor(where)
        if chosen.dtype == torch.bool:
            if chosen.shape != (len(self),):
                raise ValueError(f"A mask for {self!r} has shape ({len(self)},); got {tuple(chosen.shape)}.")
            chosen = chosen.nonzero().flatten()
        chosen = chosen.to(torch.int64)
        if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(self):
            raise ValueError(
                f"Positions in {self!r} lie in [0, {len(self)}); got {int(chosen.min())} to {int(chosen.max())}."
            )
        part = dataclasses.replace(
            self,
            images=self.images[chosen],
            labels=None if self.labels is None else self.labels[chosen],
            indices=self.indices[chosen],
            vector=None if self.vector is None else self.vector[chosen],
            beside=None if self.beside is None else self.beside[chosen],
            split=split or self.split,
            rule="; ".join(filter(None, (self.rule, note))),
        )
        if "image_hashes" in self.__dict__:
            part.__dict__["image_hashes"] = self.image_hashes[chosen.numpy()]
        return part

    def take(self, n: int, seed: int) -> Dataset:
        """Draw n images uniformly without replacement; the same (n, seed) gives the same images everywhere.

        Arguments:
            n: How many, 0 <= n <= N. The draws are nested: the first k of take(n, seed) are take(k, seed).
            seed: 0 <= seed < 2**64.

        Raises:
            ValueError: If n exceeds the number of images.
        """
        if not 0 <= n <= len(self):
            raise ValueError(f"Cannot take {n} images without replacement from {self!r}. Ask for at most {len(self)}.")
        return self.subset(ranking(len(self), seed, _TAKE)[:n], note=f"{n} drawn with seed {seed}")

    def keep_classes(self, wanted: Sequence[str | int]) -> Dataset:
        """Keep the images of some classes and renumber these 0, 1, ... in the order given.

        Arguments:
            wanted: Class names, or numbers in [0, len(classes)).

        Raises:
            ValueError: If the dataset is unlabelled, or a class is unknown or named twice.
        """
        if self.labels is None:
            raise ValueError(f"{self!r} has no labels to choose classes {list(wanted)} by.")
        numbers = [self._class_number(item) for item in wanted]
        if not numbers or len(set(numbers)) != len(numbers):
            raise ValueError(f"Classes to keep must be one or more different ones; got {list(wanted)}.")
        table = torch.full((len(self.classes),), -1, dtype=torch.int64)
        table[numbers] = torch.arange(len(numbers))
        names = tuple(self.classes[k] for k in numbers)
        renumbered = table[self.labels]
        part = self.subset(renumbered >= 0, note=f"classes {', '.join(names)}")
        kept = dataclasses.replace(part, labels=renumbered[renumbered >= 0], classes=names)
        if "image_hashes" in part.__dict__:
            kept.__dict__["image_hashes"] = part.image_hashes
        return kept

    def _class_number(self, item: str | int) -> int:
        if isinstance(item, int) and 0 <= item < len(self.classes):
            return item
        if item in self.classes:
            return self.classes.index(str(item))
        listing = ", ".join(f"{k} {name}" if name != str(k) else name for k, name in enumerate(self.classes))
        raise ValueError(f"Unknown class {item!r} of {self.name}. Available: {listing}.")


_TAKE = int.from_bytes(b"take", "big") << 32  # the Philox stream of `take`, far from the epochs 0, 1, ... of a loader


def overlap(a: Dataset, b: Dataset) -> int:
    """Count the images of `a` whose exact pixels also occur in `b`: 0 for an honest train/test pair."""
    known = set(map(bytes, b.image_hashes))
    return sum(bytes(row) in known for row in a.image_hashes)


def sigma_data(dataset: Dataset) -> float:
    """Estimate the standard deviation of the pixels in [-1, 1], EDM's sigma_data, over all images and channels.

    Returns:
        The population standard deviation about one common mean, from exact integer counts of the 256 codes.

    Raises:
        ValueError: If the dataset is empty.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras, Aittala, Aila, Laine, 2022),
        https://arxiv.org/abs/2206.00364, table 1.
    """
    if not len(dataset):
        raise ValueError(f"sigma_data needs at least one image; {dataset!r} is empty.")
    counts = torch.bincount(dataset.images.flatten(), minlength=256).double()
    code = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    p = counts / counts.sum()
    mean = (p * code).sum()
    return float((p * (code - mean).square()).sum().sqrt())
