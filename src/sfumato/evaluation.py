"""Evaluate a run: from weights to a score with its interval, its floor and its protocol.

    reference   real images of a split the model was not trained on, all of them (m)
    generated   seeds first .. first + n, classes in equal numbers if the model has classes
    floor       n real training images judged against the same reference, several times over

Images stream from the sampler into features; only features are kept. Several processes share the seeds in whole blocks,
so features, hence scores, are those of one. Features of real images are cached under the hash
of their pixels and of the extractor, never under a name. Every score records what made it; `sfumato compare` refuses
scores of different protocols.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tqdm import tqdm

from sfumato.data.dataset import Dataset
from sfumato.data.hashing import hash_images
from sfumato.metrics import rules
from sfumato.metrics.calibration import floor
from sfumato.metrics.features import Extractor, extractor, features_of
from sfumato.metrics.protocol import Reference, canonical
from sfumato.metrics.score import Score, measure, with_floor
from sfumato.sources import balanced_labels
from sfumato.training.checkpoint import replace_json
from sfumato.training.distributed import Ranks, join
from sfumato.training.machine import default_device, describe, keep_freed_memory
from sfumato.training.run import Run, load_data
from sfumato.training.sharing import blocks_of_all

FLOOR_REPEATS = 8


@dataclass(frozen=True)
class Result:
    """What an evaluation found.

    Attributes:
        run: Directory of the run.
        recipe: Name of its recipe.
        scores: One per metric, each with its floor.
        provenance: What made them: weights, sampler, NFE, seeds, machine, seconds.
        path: The JSON file that holds all this.
    """

    run: Path
    recipe: str
    scores: tuple[Score, ...]
    provenance: dict[str, Any]
    path: Path

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "run": self.run.name,
            "recipe": self.recipe,
            "scores": [score.to_json() for score in self.scores],
            "provenance": self.provenance,
        }


def evaluate(
    run: Run,
    *,
    n: int | None = None,
    extract: str | None = None,
    metrics: tuple[str, ...] = ("fd", "kid"),
    split: str = "test",
    first_seed: int = 0,
    use: str | None = None,
    root: Path | str | None = None,
    device: torch.device | str | None = None,
    quiet: bool = False,
) -> Result:
    """Score a run against real images.

    Started by `torchrun` it runs in every process; they share the seeds, and the first computes and writes the scores.

    Arguments:
        run: The run; its recipe says how it is sampled.
        n: Generated images; None for the recipe's choice.
        extract: Feature extractor; None for the recipe's choice.
        metrics: Names of metrics.
        split: Which real images are the reference.
        first_seed: Seeds are first_seed .. first_seed + n; disjoint ranges give independent scores.
        use: Which average of the weights; None for the recipe's choice.
        root: Data root.
        device: None for the best at hand.
        quiet: No progress bar.

    Returns:
        The result, also written to RUN/results/.

    Raises:
        LeakageError: If the split is called held out and the model was trained on some of it.
        SelfComparisonError: If more than 1% of the images are copies of the reference.
        NonFiniteError: If the model makes images with NaN or infinity.
        ValueError: If n is too small for a metric.
    """
    recipe = run.recipe
    n = n or recipe.evaluate.n
    ranks, device = join(device if device is not None else default_device())
    quiet = quiet or not ranks.first
    if device.type == "cpu":
        keep_freed_memory()
    with ranks.in_turn():
        real, training = load_data(recipe, split, root), load_data(recipe, "train", root)
    features = extractor(extract or recipe.evaluate.extractor, real.shape)
    reference = reference_of(real)
    notes = list(rules.check_leakage(reference, real.image_hashes, training.image_hashes))
    if run.about.get("fingerprint", {}).get("data") not in (None, training.content_hash):
        notes.append("the training images are not the ones at hand: leakage could not be checked")
    if "imported" in run.about:
        notes.append("imported weights, whose training images are not known: leakage could not be checked")
    reference_features = cached_features(features, real, quiet, ranks)
    others = load_data(replace(recipe, data=replace(recipe.data, first=None)), "train", root)
    drawn = others.take(min(len(others), FLOOR_REPEATS * n), seed=0)
    pool = cached_features(features, drawn, quiet, ranks)
    # where class counts were chosen, jackknife groups are dealt within classes: else class noise is counted twice
    made_labels = balanced_labels(n, len(run.classes))
    made_strata = None if made_labels is None else made_labels.numpy()
    real_strata = real.labels.numpy() if real.labels is not None and _balanced(real) else None
    pool_strata = drawn.labels.numpy() if made_labels is not None and drawn.labels is not None else None
    made, hashes, facts = _generate(run, n, features, first_seed, use, device, ranks, quiet)
    if not ranks.first:
        return cast(Result, ranks.from_first(None))
    copies = rules.check_self_comparison(hashes, real.image_hashes)
    provenance = facts | {
        "exact_copies_of_reference": copies,
        "exact_copies_of_training": rules.shared(hashes, training.image_hashes),
    }
    prior = "uniform" if run.classes else "unconditional"
    scores = []
    for name in metrics:
        score = measure(
            name, made, reference_features, features, reference, strata=(made_strata, real_strata),
            class_prior=prior, quantisation="round", provenance=provenance, notes=tuple(notes),
        )  # fmt: skip
        if n <= len(pool):
            lowest = floor(
                name, pool, n, features, reference, reference_features=reference_features, labels=pool_strata,
                reference_labels=real_strata, repeats=FLOOR_REPEATS,
            )  # fmt: skip
            score = with_floor(score, lowest)
        scores.append(score)
    key = hashlib.sha256(canonical([s.protocol.to_json() for s in scores]).encode()).hexdigest()[:8]
    path = run.path / "results" / f"{features.name}-{split}-n{n}-{key}.json"
    path.parent.mkdir(exist_ok=True)
    result = Result(run.path, recipe.name, tuple(scores), provenance, path)
    replace_json(path, result.to_json())
    return ranks.from_first(result)


def _balanced(data: Dataset) -> bool:
    """Return whether a dataset holds equally many images of each class, which is then a choice and not chance."""
    counts = torch.bincount(data.labels, minlength=len(data.classes)) if data.labels is not None else torch.zeros(0)
    return len(counts) > 1 and bool((counts == counts[0]).all())


def _generate(
    run: Run,
    n: int,
    extract: Extractor,
    first_seed: int,
    use: str | None,
    device: torch.device,
    ranks: Ranks,
    quiet: bool,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return (features (n, d), image hashes (n, 32), how they were made), the same on every rank."""
    recipe = run.recipe
    source, asked_of = run.counted(use, device)
    labels = balanced_labels(n, len(run.classes))
    seeds = range(first_seed, first_seed + n)
    sampling = 0.0

    def judge(part: slice) -> tuple[np.ndarray, np.ndarray]:
        nonlocal sampling
        began = time.monotonic()
        images = source(seeds[part], None if labels is None else labels[part])
        sampling += time.monotonic() - began
        return features_of(extract, images), hash_images(images)

    with tqdm(total=n, unit="img", desc="sampling", disable=quiet, dynamic_ncols=True) as bar:
        blocks = blocks_of_all(ranks, n, source.batch, judge, bar.update)
    own, weaker = (sum(rows) for rows in zip(*ranks.gather(asked_of())))
    asked = own + weaker
    slowest = max(ranks.gather(sampling))
    saved = run.checkpoint
    facts = {
        "checkpoint": saved.path.name,
        "images_seen": saved.state["seen"],
        "training_seconds": round(saved.state["elapsed"], 1),
        "weights": use or recipe.ema.use,
        "recipe": recipe.hash,
        "training_data": run.about.get("fingerprint", {}),
        **run.making,
        "nfe": asked // n if asked % n == 0 else round(asked / n, 2),
        "nfe_weak": weaker // n if weaker % n == 0 else round(weaker / n, 2),
        "precision": recipe.train.precision,
        "seeds": [first_seed, first_seed + n],
        "batch": source.batch,
        "images_per_second": round(n / slowest, 2),
        "machine": describe(device) | {"processes": ranks.world},
    }
    return np.concatenate([rows for rows, _ in blocks]), np.concatenate([own for _, own in blocks]), facts


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


def cached_features(extract: Extractor, data: Dataset, quiet: bool = True, ranks: Ranks = Ranks()) -> np.ndarray:
    """Return the features (N, d) of real images, computed once per content and extractor, by all ranks together.

    The cache lies under ``$XDG_CACHE_HOME/sfumato/features`` (``~/.cache``) and is keyed by the hashes of the pixels in
    their order, of the weights, and of everything the extractor says about itself.
    """
    order = hashlib.sha256(np.ascontiguousarray(data.image_hashes).tobytes()).hexdigest()
    facts = [order, extract.name, extract.weights_hash, extract.describe()]
    key = hashlib.sha256(canonical(facts).encode()).hexdigest()[:32]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sfumato" / "features"
    file = root / f"{key}.npy"
    stored = None
    if ranks.first and file.exists():
        with contextlib.suppress(ValueError, OSError, EOFError):  # a damaged file is made again
            stored = np.load(file, allow_pickle=False)
        if stored is not None and stored.shape != (len(data), extract.dimension):
            stored = None
    stored = ranks.from_first(stored)
    if stored is not None:
        return stored
    with tqdm(total=len(data), unit="img", desc=f"features of {data.name} {data.split}", disable=quiet) as bar:
        parts = blocks_of_all(
            ranks, len(data), 500, lambda part: features_of(extract, data.images[part]), bar.update
        )  # fmt: skip
    features = np.concatenate(parts)
    if not ranks.first:
        return features
    root.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.tmp")
    with open(partial, "wb") as handle:
        np.save(handle, features)
    os.replace(partial, file)
    return features


def load_results(run: Run) -> list[dict[str, Any]]:
    """Return every result written for a run, oldest first."""
    files = sorted((run.path / "results").glob("*.json"), key=lambda p: p.stat().st_mtime)
    return [json.loads(file.read_text()) for file in files]
