"""Real images as features: computed once, and kept under the hash of their pixels and of all that made them."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sfumato.core.reading import read_json
from sfumato.core.weights import hash_tensors
from sfumato.core.writing import replacing
from sfumato.data.dataset import Dataset
from sfumato.data.streaming import Stream
from sfumato.evaluation.cache import keep, place, whole
from sfumato.metrics.features import Extractor, stream
from sfumato.metrics.protocol import Reference
from sfumato.metrics.score import Score
from sfumato.metrics.statistics import Features
from sfumato.metrics.views import Logits
from sfumato.processes.ranks import Ranks
from sfumato.progress import bar_of


def reference_of(data: Dataset) -> Reference:
    """Describe real images as the reference of a protocol."""
    return Reference(
        dataset=data.name,
        content_hash=data.content_hash,
        split=data.split,
        rule=data.rule,
        index_hash=data.index_hash,
        n=len(data),
        channels=data.shape[0],
    )


def identity(reference: Reference) -> str:
    """Return what names a reference in a choice that was made by it: its content, split and indices."""
    return f"{reference.content_hash}/{reference.split}/{reference.index_hash}"


def balanced(data: Dataset) -> bool:
    """Return whether a dataset holds equally many images of each class, which is then a choice and not chance."""
    counts = torch.bincount(data.labels, minlength=len(data.classes)) if data.labels is not None else torch.zeros(0)
    return len(counts) > 1 and bool((counts == counts[0]).all())


def balanced_classes(data: Dataset) -> np.ndarray | None:
    """Return the classes of a dataset's images where it holds equally many of each; None elsewhere."""
    return data.labels.numpy() if data.labels is not None and balanced(data) else None


def most_of(data: Dataset | Stream, labelled: bool) -> int:
    """Return how many generated images at most can stand beside as many of these, with classes equally many of each.

    Arguments:
        data: Training images, from which floors are drawn.
        labelled: Whether the model is asked for their classes in turn.
    """
    if not labelled or data.labels is None:
        return len(data)
    counts = np.unique(data.labels.numpy(), return_counts=True)[1]
    return int(len(counts) * counts.min())


def order_of(data: Dataset | Stream) -> str:
    """Return a hash of images in their order."""
    return hashlib.sha256(np.ascontiguousarray(data.image_hashes).tobytes()).hexdigest()


def content_of(data: Dataset | Stream, labels: bool = True) -> dict[str, str]:
    """Return hashes of images in their order and of what is told beside each: its class, attributes, another image.

    Arguments:
        data: The images.
        labels: Whether their classes belong to it.
    """
    found = {"order": order_of(data)}
    if labels and data.labels is not None:
        found["labelling"] = hashlib.sha256(data.labels.numpy().astype("<i8").tobytes()).hexdigest()
    beside = {name: value for name in ("vector", "beside") if (value := getattr(data, name, None)) is not None}
    return found | ({"told": hash_tensors(beside)} if beside else {})


def cached_features(extract: Extractor, data: Dataset, quiet: bool = True, ranks: Ranks = Ranks()) -> Features:
    """Return the features (N, d) of real images, computed once per content and extractor, read from disk where used.

    Processes other than the first help to compute and get an empty array.

    Arguments:
        extract: The extractor, or another view of it (`metrics.views`).
        data: The images.
        quiet: Whether the progress bar is left out.
        ranks: The processes that share the work; what they compute is kept by the first.
    """
    view, width = ("logits" if isinstance(extract, Logits) else "features"), extract.dimension
    facts = [order_of(data), extract.name, extract.weights_hash, extract.describe(), view]
    file = place("features", facts).with_suffix(".npy")
    stored = whole(file) if ranks.first else None
    stored = stored if stored is not None and stored.shape == (len(data), width) else None
    if ranks.from_first(stored is not None):
        return np.empty((0, width), np.float32) if stored is None else stored
    partial = file.with_suffix(f".{os.getpid()}.tmp")
    rows = np.lib.format.open_memmap(partial, "w+", np.float32, (len(data), width)) if ranks.first else None
    crc, batch = 0, 250
    with bar_of(len(data), "img", f"{view} of {data.name} {data.split}", quiet=quiet) as bar:
        for turn in range(0, len(data), batch * ranks.world):
            images = data.images[turn + batch * ranks.rank :][:batch]
            part = np.empty((0, width), np.float32)
            if len(images):
                part = next(stream(extract, [images]))
            joined = np.concatenate(ranks.gather(part))
            if rows is not None:
                rows[turn : turn + len(joined)] = joined
                crc = zlib.crc32(np.ascontiguousarray(joined, np.float32).tobytes(), crc)
            bar.update(len(joined))
    if rows is None:
        return np.empty((0, width), np.float32)
    rows.flush()
    del rows
    keep(partial, file, crc, facts)
    return np.load(file, mmap_mode="r", allow_pickle=False)


def cached_score(facts: Any, make: Callable[[], Score]) -> Score:
    """Return a score of real images, computed once.

    Arguments:
        facts: JSON values that decide it, all of them.
        make: Computes it.
    """
    file = place("floors", facts).with_suffix(".json")
    try:
        return Score.from_json(read_json(file, finite=False))
    except (OSError, ValueError, KeyError, TypeError):
        found = make()
    with replacing(file) as partial:
        partial.write_text(json.dumps(found.to_json()))
    return found
