"""Any two sets, judged against each other: folders, zips, arrays, statistics, datasets.

The first set plays the generated images, the second the reference.  Files are decoded a chunk at a time and become
features at once; features are the only thing kept, in a temporary file, so memory does not grow with the number of
images.  Images are recognised by the hash of their pixels: a set compared with itself is refused whatever its files are
called.

A statistics file holds a mean and a covariance only.  Against it there is a plain Frechet distance and no interval:
nothing says how the mean would change with other images.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.data import load
from sfumato.data.arrays import as_images, members, read_array
from sfumato.data.dataset import DataError
from sfumato.data.gathering import Shape, read_all
from sfumato.data.hashing import hash_images
from sfumato.data.listing import Listing, open_listing
from sfumato.data.lmdb import database_parts
from sfumato.data.sources import kind_of
from sfumato.evaluation.judge import Generated, Judge, each
from sfumato.evaluation.real import balanced_classes
from sfumato.metrics.features import Extractor, ImageShape, extractor, stream
from sfumato.metrics.flags import flagged
from sfumato.metrics.frechet import expected_bias, frechet_distance
from sfumato.metrics.metric import find_metric
from sfumato.metrics.protocol import Reference
from sfumato.metrics.score import Score
from sfumato.metrics.statistics import Features, Moments, blocks, check_features
from sfumato.metrics.statistics_file import facts_of, load_statistics, save_statistics
from sfumato.progress import bar_of

CHUNK = 250  # images decoded at once


@dataclass(frozen=True)
class Images:
    """Images that come in chunks.

    Arguments:
        name: What a table calls them.
        count: How many there are.
        shape: (C, H, W).
        chunks: Starts over the chunks, uint8 (b, C, H, W).
        formats: Formats of their files, as far as they have been read.
        split: Part of a dataset; "all" of other sources.
        rule: How they were chosen.
        indices: Hash of which part of a source they are.
        labels: int (count,), their classes where there are equally many of each; None elsewhere.
    """

    name: str
    count: int
    shape: ImageShape
    chunks: Callable[[], Iterator[Tensor]]
    formats: Collection[str] = ()
    split: str = "all"
    rule: str = ""
    indices: str = ""
    labels: np.ndarray | None = None

    @property
    def codec(self) -> str:
        """The formats of their files, by their bytes and not their names; "none" if they come of none."""
        return "+".join(sorted(self.formats)) or "none"


class Given:
    """Features that were computed elsewhere; a stand-in for the extractor that is not known.

    Arguments:
        dimension: Number of features.
    """

    def __init__(self, dimension: int):
        self.name, self.dimension, self.weights_hash = "given", dimension, "unknown"

    def __call__(self, images: Tensor) -> Tensor:
        raise ValueError("These features were computed elsewhere; images cannot be added to them.")

    def describe(self) -> dict[str, Any]:
        """Describe how an image becomes features: not known."""
        return {"layer": "unknown", "dtype": "float32"}


ImageSet = Images | Features | Path  # a path is that of a statistics file


def open_set(text: str, root: Path | str | None = None) -> ImageSet:
    """Open a set of images.

    Arguments:
        text: A folder, .zip or LMDB of images, an .npy or .npz file of images, features or statistics, or a dataset,
            whose split may follow an @: fashion-mnist@test (all of it unless given).
        root: Data root.

    Raises:
        DataError: If there is no such thing, it is unsafe or damaged, or holds too few images.
        ValueError: For an unknown dataset or split.
    """
    path = Path(text).expanduser()
    if path.suffix in (".npy", ".npz") and path.is_file():
        if path.suffix == ".npz" and members(path) & {"mu", "mean"}:
            return path
        array = read_array(path)
        if array.dtype in (np.float32, np.float64):
            return check_features(array, f"features in {path}")
        images = as_images(array, path)
        parts = lambda: (torch.from_numpy(np.array(part)) for part in blocks(images, CHUNK))  # noqa: E731
        return _counted(Images(path.stem, len(images), images.shape[1:], parts))
    kind = "lmdb" if text.startswith("lmdb:") else kind_of(path)
    if kind == "lmdb":
        return _files([*database_parts(text.removeprefix("lmdb:")).values()])
    if kind == "folder" or path.suffix == ".zip":
        return _files([open_listing(path)])
    if path.suffix in (".npy", ".npz"):
        raise DataError(f"There is no file {path}.")
    name, _, split = text.partition("@")
    data = load(name, split=split or "all", root=root)
    return _counted(Images(name, len(data), data.shape, lambda: iter(data.images.split(CHUNK)), (), data.split,
                           data.rule, data.index_hash, balanced_classes(data)))  # fmt: skip


def _counted(images: Images) -> Images:
    if images.count < 2:
        raise DataError(
            f"{images.name} holds {images.count} image{'s' * (images.count != 1)}; a comparison needs at "
            "least 2 on each side."
        )
    return images


def _files(listings: Sequence[Listing]) -> Images:
    path, formats = listings[0].path, set[str]()

    def chunks() -> Iterator[Tensor]:
        shape: torch.Size | None = None
        for listing in listings:
            for start in range(0, len(listing.names), CHUNK):
                part = decoded(listing, listing.names[start : start + CHUNK])
                if shape not in (None, part.shape[1:]):
                    raise DataError(
                        f"Images in {path} differ in shape: {tuple(shape or ())} and {tuple(part.shape[1:])}. "
                        "`sfumato data check` lists them; prepare them in one size."
                    )
                shape = part.shape[1:]
                yield part

    def decoded(listing: Listing, some: tuple[str, ...]) -> Tensor:
        found = read_all(listing, Shape(), some)
        bad = [f"{f.name}: {f.fault}" for f in found if f.pixels is None]
        if bad:
            raise DataError(
                f"{len(bad)} of the images in {path} are bad: {'; '.join(bad[:3])}. Nothing was scored; "
                "`sfumato data check` lists them all."
            )
        formats.update(f.format for f in found)
        return torch.from_numpy(np.stack([f.pixels for f in found if f.pixels is not None]))

    c, h, w = decoded(listings[0], listings[0].names[:1]).shape[1:]
    return _counted(Images(path.name, sum(len(listing.names) for listing in listings), (c, h, w), chunks, formats))


@dataclass(frozen=True)
class Found:
    """What a comparison of two sets found.

    Attributes:
        scores: With intervals; none against a statistics file.
        plain: The textbook Frechet distance.
        equal_sets: What two sets of one kind and these sizes would give on average, for Gaussian features; None if n or
            m is unknown.
        n: Images of the first set.
        m: Images of the second, 0 if unknown.
        name: Name of the plain distance.
        flags: What a reader must know of it.
        refused: Why a metric could not be computed, by its name.
    """

    scores: tuple[Score, ...]
    plain: float
    equal_sets: float | None
    n: int
    m: int
    name: str
    flags: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


def compare_sets(
    a: ImageSet,
    b: ImageSet,
    *,
    extract: str | None = None,
    options: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = ("fd", "kid"),
    save: Path | None = None,
    quiet: bool = False,
) -> Found:
    """Judge one set against another.

    Arguments:
        a: Plays the generated images.
        b: Plays the reference.
        extract: Feature extractor of images; "random" unless given.
        options: The extractor's own.
        metrics: Metrics of features.
        save: Where to write the second set's statistics, for later comparisons.
        quiet: Whether progress bars are left out.

    Returns:
        Scores, or the plain distance alone against statistics.

    Raises:
        SelfComparisonError: If more than 1% of the first set's images are in the second.
        ValueError: If the sets do not fit each other or the metrics need more images.
    """
    if isinstance(a, Path):
        raise ValueError(
            "The first set plays the generated images and must be images or features; statistics can "
            "only be the reference. Exchange the two."
        )
    makers = {id(one): extractor(extract or "random", one.shape, options) for one in (a, b) if isinstance(one, Images)}
    known = list(makers.values())
    if not known and (extract is not None or options):
        raise ValueError(
            "An extractor and its options say how images become features, and neither set is images. Leave them out."
        )
    if len(known) == 2 and known[0].describe()["resize"] == "none" and a.shape != b.shape:  # type: ignore[union-attr]
        raise ValueError(
            f"Images of {a.name} are {a.shape} and of {b.name} {b.shape}, and extractor "  # type: ignore
            f"'{known[0].name}' does not resize. Prepare one of them in the other's size."
        )
    if len(known) == 1 and not isinstance(b, Path):
        raise ValueError(
            "One set is images and the other features of an unknown extractor. Give images for both, or features for "
            "both."
        )
    refused: dict[str, str] = {}
    if isinstance(b, Path):  # before any features are computed
        if save is not None:
            raise ValueError(f"{b} holds statistics already, and there are no others to save. Copy it.")
        each(metrics, refused, _of_moments)
    with tempfile.TemporaryDirectory(prefix="sfumato-") as folder:
        x, x_hashes = _features(a, makers.get(id(a)), Path(folder) / "a.npy", quiet)
        codec, name = (a.codec, a.name) if isinstance(a, Images) else ("none", "features")
        if isinstance(b, Path):
            return _against_statistics(x, b, known[0] if known else Given(x.shape[1]), refused)
        m = len(b) if isinstance(b, np.ndarray) else b.count
        possible = each(metrics, refused, lambda one: find_metric(one).check(len(x), m))
        y, y_hashes = _features(b, makers.get(id(b)), Path(folder) / "b.npy", quiet)
        shape = b.shape if isinstance(b, Images) else (1, 1, y.shape[1])
        extract_of = makers.get(id(b)) or Given(y.shape[1])
        judge = Judge(extract_of, shape, _reference(b, y_hashes), lambda one: y, y_hashes, _strata(b))
        made = judge.checked(
            Generated({"features": x}, _strata(a), f"as in {name}", x_hashes, {"generated": name}, codec)
        )
        scores = tuple(each(possible, refused, lambda one: judge.score(one, made)).values())
        p, q = Moments.over(x), Moments.over(y)
        if save is not None:
            save_statistics(save, q, {"content_hash": judge.reference.content_hash, "extractor": extract_of.name,
                                      "weights_hash": extract_of.weights_hash, "features": extract_of.describe(),
                                      "dataset": judge.reference.dataset, "split": judge.reference.split})  # fmt: skip
        plain = next((s.plain for s in scores if s.protocol.metric == "FD"), None)
        plain = frechet_distance(p.mean, p.cov, q.mean, q.cov) if plain is None else plain
        return Found(scores, plain, _bias(q.cov, len(x), len(y)), len(x), len(y), f"FD[{extract_of.name}]", (), refused)


def _bias(cov: np.ndarray, n: int, m: int) -> float:
    """Return the plain distance that two sets of one kind have on average, for Gaussian features."""
    return expected_bias(np.maximum(np.linalg.eigvalsh(cov), 1e-12), n, m)


def _strata(images: Images | Features) -> np.ndarray | None:
    return images.labels if isinstance(images, Images) else None


def _features(
    images: Images | Features, extract: Extractor | None, file: Path, quiet: bool
) -> tuple[Features, np.ndarray]:
    """Return (features, hashes of the images or of the rows)."""
    if isinstance(images, np.ndarray):
        return images, np.concatenate([_row_hashes(part) for part in blocks(images)])
    assert extract is not None
    rows = np.lib.format.open_memmap(file, "w+", np.float32, (images.count, extract.dimension))
    hashes = np.empty((images.count, 32), np.uint8)
    place = 0
    with bar_of(images.count, "img", f"features of {images.name}", quiet=quiet) as bar:
        for part in images.chunks():
            stop = place + len(part)
            rows[place:stop] = next(stream(extract, [part]))
            hashes[place:stop], place = hash_images(part), stop
            bar.update(len(part))
    rows.flush()
    return np.load(file, mmap_mode="r", allow_pickle=False), hashes


def _row_hashes(rows: Features) -> np.ndarray:
    joined = b"".join(hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest() for row in rows)
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def _reference(images: Images | Features, hashes: np.ndarray) -> Reference:
    content = hashlib.sha256(b"".join(sorted(bytes(row) for row in hashes))).hexdigest()
    if isinstance(images, np.ndarray):
        return Reference("features", content, "all", "", "", len(images))
    files = f"files: {images.codec}" if images.codec != "none" else "none"
    return Reference(
        images.name, content, images.split, images.rule, images.indices, images.count, files, channels=images.shape[0]
    )


def _against_statistics(x: Features, path: Path, judge: Extractor, refused: Mapping[str, str]) -> Found:
    about = facts_of(path)
    stated = about.get("extractor")
    given = isinstance(judge, Given)
    if stated is not None and stated != judge.name and not given:
        raise ValueError(
            f"The statistics are of extractor '{stated}' and these features of '{judge.name}'. Use --extract {stated}."
        )
    if about.get("weights_hash", judge.weights_hash) != judge.weights_hash and not given:
        raise ValueError(f"The statistics are of other weights of '{judge.name}' than these features.")
    p, held = Moments.over(x), load_statistics(path, x.shape[1])
    plain = frechet_distance(p.mean, p.cov, held.mean, held.cov)
    flags = [flagged("statistics-file")]
    flags += [flagged("given", extractor=stated)] if given and stated is not None else []
    flags += [] if held.verified else [flagged("unverified")]
    flags += [flagged("unpinned", sizes="n", count=len(x), needed=10 * x.shape[1])] if len(x) < 10 * x.shape[1] else []
    bias = _bias(held.cov, len(x), held.n) if held.n else None
    return Found((), plain, bias, len(x), held.n, f"FD[{judge.name}]", tuple(flags), refused)


def _of_moments(metric: str) -> None:
    """Refuse a metric that means and covariances do not decide."""
    if metric != "fd":
        raise ValueError(f"{metric} needs the images or features of the reference, and it is a statistics file.")
