"""Data that is larger than memory: images stay where they are and are decoded when training asks for them.

A `Stream` knows of every image what a `Dataset` knows, its hash, label and position, but not its pixels. The hashes
take one pass over the source, decoding each file once; they are kept in a cache, keyed by the state of the source's
files and the shape, so that the pass is made once, and every image is compared with its hash when it is read.
`StreamLoader` has the interface of `Loader` and the same law: sample p of a run is a function of (seed, p). Workers
decode ahead of the training loop; what they guess about the next batch costs time if it is wrong and nothing else, so
the samples are the same for any number of workers, and a run resumes mid-epoch from one integer.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfumato.core.archives import read_npz
from sfumato.core.reading import FileRefusedError
from sfumato.core.writing import replacing
from sfumato.data.dataset import DataError, Dataset
from sfumato.data.gathering import Found, Shape, good_ones, labelled_only, read_one, unlike, usual_shape, whole_of
from sfumato.data.hashing import hash_image
from sfumato.data.listing import Listing, labels_of, stamp
from sfumato.data.loader import Loader
from sfumato.data.sources import kind_of, listings_of
from sfumato.data.splits import HELD_OUT, pieces, split_by_hash
from sfumato.download import cache_folder
from sfumato.progress import bar_of

AHEAD = 3  # batches that workers decode before they are asked for
STREAMS = ("folder", "zip", "lmdb")  # sources of files without splits of their own
PASS = 512  # files of the first pass held at a time
KEPT = ("original", "final", "shape", "bad", "why")  # of a first pass


@dataclass(frozen=True, eq=False)
class Stream:
    """Hold where images are, with their hashes and labels.

    Attributes:
        listing: The opened folder or archive.
        form: Size and channels that every image gets.
        facts: A `Dataset` of one pixel an image: names, labels, classes, split, indices, rule.
        hashes: sha256 of every image as it becomes, uint8 (N, 32).
        shape: Shape of one image, (C, H, W).
    """

    listing: Listing
    form: Shape
    facts: Dataset
    hashes: np.ndarray
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.facts)

    def __repr__(self) -> str:
        return repr(self.facts).replace("Dataset(", "Stream(").replace("1x1x1", "x".join(map(str, self.shape)))

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.facts.name

    @property
    def labels(self) -> Tensor | None:
        """Class of every image, int64 (N,), or None."""
        return self.facts.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.facts.classes

    @property
    def rule(self) -> str:
        """The rule by which the split was made."""
        return self.facts.rule

    @property
    def split(self) -> str:
        """The name of the split."""
        return self.facts.split

    @property
    def left_out(self) -> tuple[str, ...]:
        """What the source holds beside these images, and why it is not among them."""
        return self.facts.left_out

    @property
    def image_hashes(self) -> np.ndarray:
        """The sha256 of every image, uint8 (N, 32)."""
        return self.hashes

    @cached_property
    def content_hash(self) -> str:
        """The same hash as of a `Dataset` of the same images."""
        return hashlib.sha256(b"".join(sorted(map(bytes, self.hashes)))).hexdigest()

    @property
    def index_hash(self) -> str:
        """The same hash as of a `Dataset` of the same images."""
        return self.facts.index_hash

    def read(self, positions: Sequence[int]) -> Tensor:
        """Decode images, uint8 (B, C, H, W).

        Raises:
            DataError: If a file is no longer what it was at the first pass.
        """
        out = np.empty((len(positions), *self.shape), dtype=np.uint8)
        for i, position in enumerate(positions):
            name = self.listing.names[int(self.facts.indices[position])]
            found = read_one(self.listing, name, self.form)
            if found.pixels is None or found.pixels.shape != self.shape:
                raise DataError(f"{name} of {self.listing.path} has changed since training began: {found.fault}.")
            if hash_image(found.pixels) != self.hashes[position].tobytes():
                raise DataError(
                    f"{name} of {self.listing.path} is another image than when training began, so nothing that was "
                    "checked of it holds. Restore it, or give another --out to begin with what is there now."
                )
            out[i] = found.pixels
        return torch.from_numpy(out)

    def subset(self, where: Sequence[int], *, note: str = "") -> Stream:
        """Keep some images, in the order given."""
        positions = torch.as_tensor(where, dtype=torch.int64)
        return replace(self, facts=self.facts.subset(positions, note=note), hashes=self.hashes[positions.numpy()])

    def take(self, n: int, seed: int) -> Dataset:
        """Read n images drawn without replacement into memory, as `Dataset.take` would draw them."""
        drawn = self.facts.take(n, seed)
        positions = {int(index): i for i, index in enumerate(self.facts.indices)}
        images = self.read([positions[int(index)] for index in drawn.indices])
        return replace(drawn, images=images)

    @property
    def images(self) -> Tensor:
        """Raise a DataError: the pixels are not in memory."""
        raise DataError(
            f"{self!r} is streamed: its pixels are not in memory. Use a part (data.first=N), or data.stream=false."
        )


def open_stream(
    parts: Mapping[str, Listing],
    name: str,
    form: Shape,
    *,
    split: str,
    val: float,
    test: float,
    labels: bool,
    skip_bad: bool,
) -> Stream:
    """Make one pass over a source, or find it in the cache, and choose one split of it.

    Arguments:
        parts: The opened source by its official splits.
        name: Name of the dataset.
        form: Size and channels that every image gets; the size must be given.
        split, val, test, labels, skip_bad: The same as in `gathering.gather`.

    Raises:
        DataError: For what `gathering.gather` refuses, or if the shape has no size.
    """
    chosen = pieces(parts, split, val=val, test=test)
    (piece, *more), _ = labelled_only(parts, chosen, labels)
    if more:
        raise DataError(f"{name} has several splits, of which one at a time is streamed; got split={split}.")
    listing = parts[piece.part]
    classes = labels_of(listing) if labels else None
    original, final, shape, bad, why = _first_pass(listing, form, skip_bad)
    good = np.flatnonzero(~bad)
    pixels = torch.zeros((len(good), 1, 1, 1), dtype=torch.uint8)
    whole = whole_of(listing, name, form, pixels, classes, good, why)
    part = split_by_hash(whole, piece.split, val=piece.val, test=piece.test, hashes=original[good])
    if len(parts) > 1:
        part = part.subset(range(len(part)), note=piece.note, split=split)
    return Stream(listing, form, part, final[part.indices.numpy()], shape)


def _first_pass(
    listing: Listing, form: Shape, skip_bad: bool
) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int], np.ndarray, list[str]]:
    """Return (hashes of the originals, hashes of what they become, shape, which are bad, why each of those is)."""
    file = _cache_file(listing, form)
    if file.exists():
        stored = _stored(file)
        if stored and len(stored["bad"]) == len(listing.names) and (skip_bad or not stored["bad"].any()):
            c, h, w = (int(n) for n in stored["shape"])
            return stored["original"], stored["final"], (c, h, w), stored["bad"], str(stored["why"]).splitlines()
    count = len(listing.names)
    original, final = np.zeros((count, 32), np.uint8), np.zeros((count, 32), np.uint8)
    shapes: list[tuple[int, ...] | None] = []
    faults: list[Found] = []
    told = f"Hashing {listing.path.name}"
    with ThreadPoolExecutor(4) as pool, bar_of(count, "img", told) as bar:
        for start in range(0, count, PASS):
            names = listing.names[start : start + PASS]
            for i, found in enumerate(pool.map(lambda name: read_one(listing, name, form), names), start):
                shapes.append(None if found.pixels is None else found.pixels.shape)
                if found.pixels is None:
                    faults.append(found)
                else:
                    original[i] = np.frombuffer(found.digest, dtype=np.uint8)
                    final[i] = np.frombuffer(hash_image(found.pixels), dtype=np.uint8)
            bar.update(len(names))
    usual = usual_shape(shape for shape in shapes if shape is not None)
    named = zip(listing.names, shapes)
    faults += [unlike(Found(name), shape, usual) for name, shape in named if shape is not None and shape != usual]
    bad = np.array([shape is None or shape != usual for shape in shapes])
    if faults and (not skip_bad or bad.all()):
        good_ones(listing, faults, skip_bad=False)
    c, h, w = usual
    why = [found.reason.replace("\n", " ") or "unknown" for found in faults]
    with replacing(file) as part, open(part, "wb") as handle:
        np.savez(
            handle, original=original, final=final, shape=np.array([c, h, w]), bad=bad, why=np.array("\n".join(why))
        )
    return original, final, (c, h, w), bad, why


def _stored(file: Path) -> dict[str, np.ndarray] | None:
    """Return what an earlier pass has kept; None if it is damaged."""
    try:
        found = read_npz(file, KEPT, most=1 << 32)
    except FileRefusedError:
        return None
    return found if len(found) == len(KEPT) else None


def _cache_file(listing: Listing, form: Shape) -> Path:
    """Name the first pass's cache by the state of the source (`listing.stamp`) and the shape."""
    text = json.dumps([stamp(listing), form.written(), form.filter])
    return cache_folder("streams") / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"


class StreamLoader(Loader):
    """Serve batches of a stream by position: a `Loader` whose images are decoded by workers.

    Arguments:
        stream: Images on disk, with their labels.
        seed: 0 <= seed < 2**64; decides order and flips.
        device: Device of the batches.
        flip: Mirror each sample left-right with probability 1/2.
        workers: Threads that decode ahead; 0 decodes when asked. The samples do not depend on it.
    """

    def __init__(
        self, stream: Stream, seed: int = 0, device: torch.device | str = "cpu", *, flip: bool = False, workers: int = 2
    ) -> None:
        if workers < 0:
            raise ValueError(f"Workers are 0 or more; got {workers}.")
        super().__init__(stream.facts, seed, device, flip=flip)
        self.stream = stream
        self._pool = ThreadPoolExecutor(workers) if workers else None
        self._ready: dict[tuple[int, int], Future[Tensor]] = {}
        self._last = 0

    def codes(self, start: int, chosen: Tensor) -> Tensor:
        """Return the pixels of a batch, decoded ahead if it was expected, and expect those that follow."""
        count = len(chosen)
        waiting = self._ready.pop((start, count), None)
        codes = waiting.result() if waiting is not None else self.stream.read(chosen.tolist())
        self._guess(start, count)
        return codes.to(self.device, non_blocking=True)

    def _guess(self, start: int, count: int) -> None:
        """Let workers decode the batches that follow if the steps go on as they went."""
        if self._pool is None:
            return
        stride = start - self._last if start > self._last else count
        self._last = start
        wanted = [(start + k * stride, count) for k in range(1, AHEAD + 1)]
        for key in [key for key in self._ready if key not in wanted]:
            self._ready.pop(key).cancel()
        for first, number in wanted:
            if (first, number) not in self._ready:
                positions = self.order(torch.arange(first, first + number)).tolist()
                self._ready[first, number] = self._pool.submit(self.stream.read, positions)

    def close(self) -> None:
        """Stop the workers."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def loader_for(
    data: Dataset | Stream, seed: int, device: torch.device | str, *, flip: bool = False, workers: int = 2
) -> Loader:
    """Return the loader of a dataset: in memory on the device, or streamed."""
    if isinstance(data, Stream):
        return StreamLoader(data, seed, device, flip=flip, workers=workers)
    return Loader(data, seed, device, flip=flip)


def memory() -> int:
    """Return the bytes of memory that images may take: half of what is free, or SFUMATO_MEMORY in MiB."""
    told = os.environ.get("SFUMATO_MEMORY")
    if told:
        try:
            return int(float(told) * 2**20)
        except ValueError:
            raise DataError(f"SFUMATO_MEMORY is a number of MiB; got {told!r}.") from None
    try:
        pages, size = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1 << 62
    return pages * size // 2


def too_large(listing: Listing, form: Shape) -> bool:
    """Return whether a source's images would not fit into memory, judged by its first image."""
    found = read_one(listing, listing.names[0], form)
    return found.pixels is not None and found.pixels.nbytes * len(listing.names) > memory()


def streamed(
    name: str,
    form: Shape,
    *,
    split: str,
    val: float = 0.0,
    test: float | None = None,
    labels: bool = True,
    skip_bad: bool = False,
    always: bool = False,
) -> Stream | None:
    """Open a source of files as a stream if its images do not fit into memory.

    Arguments:
        name: Name of the dataset, as in `load`.
        form: Size and channels that every image gets.
        split, val, test, labels, skip_bad: The same as in `load`.
        always: Whether to stream whatever the size.

    Returns:
        The stream; None if the images fit, or the dataset has no files to stream from.

    Raises:
        DataError: For what `open_stream` refuses; with `always`, also if the dataset cannot be streamed.
    """
    kind = name.partition(":")[0]
    if kind not in STREAMS and not (name.strip() and kind_of(Path(name).expanduser()) in STREAMS):
        if always:
            raise DataError(f"{name} cannot be streamed; {', '.join(f'{k}:PATH' for k in STREAMS)} can.")
        return None
    parts = listings_of(name)
    if not always and not any(too_large(listing, form) for listing in parts.values()):
        return None
    share = HELD_OUT if test is None else test
    called = next(iter(parts.values())).path.stem
    return open_stream(parts, called, form, split=split, val=val, test=share, labels=labels, skip_bad=skip_bad)
