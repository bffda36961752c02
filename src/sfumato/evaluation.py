"""Evaluate a run: from weights to a score with its interval, its floor and its protocol.

    reference   real images of a split the model was not trained on, all of them (m)
    generated   seeds first .. first + n, classes in equal numbers if the model has classes
    floor       n real training images judged against the same reference, several times over

Images stream from the sampler into features; only features are kept. Features of real images are cached under the hash
of their pixels and of the extractor, never under a name. Every score records what made it; `sfumato compare` refuses
scores of different protocols.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from sfumato.training.machine import default_device, describe, keep_freed_memory
from sfumato.training.run import Run, load_data

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
    device = torch.device(device) if device is not None else default_device()
    if device.type == "cpu":
        keep_freed_memory()
    real, training = load_data(recipe, split, root), load_data(recipe, "train", root)
    features = extractor(extract or recipe.evaluate.extractor, real.shape)
    reference = reference_of(real)
    notes = list(rules.check_leakage(reference, real.image_hashes, training.image_hashes))
    if run.about.get("fingerprint", {}).get("data") not in (None, training.content_hash):
        notes.append("the training images are not the ones at hand: leakage could not be checked")
    if "imported" in run.about:
        notes.append("imported weights, whose training images are not known: leakage could not be checked")
    reference_features = cached_features(features, real, quiet)
    others = load_data(replace(recipe, data=replace(recipe.data, first=None)), "train", root)
    drawn = others.take(min(len(others), FLOOR_REPEATS * n), seed=0)
    pool = cached_features(features, drawn, quiet)
    # where class counts were chosen, jackknife groups are dealt within classes: else class noise is counted twice
    made_labels = balanced_labels(n, len(run.classes))
    made_strata = None if made_labels is None else made_labels.numpy()
    real_strata = real.labels.numpy() if real.labels is not None and _balanced(real) else None
    pool_strata = drawn.labels.numpy() if made_labels is not None and drawn.labels is not None else None
    made, hashes, facts = _generate(run, n, features, first_seed, use, device, quiet)
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
    return result


def _balanced(data: Dataset) -> bool:
    """Return whether a dataset holds equally many images of each class, which is then a choice and not chance."""
    counts = torch.bincount(data.labels, minlength=len(data.classes)) if data.labels is not None else torch.zeros(0)
    return len(counts) > 1 and bool((counts == counts[0]).all())


def _generate(
    run: Run, n: int, extract: Extractor, first_seed: int, use: str | None, device: torch.device, quiet: bool
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return (features (n, d), image hashes (n, 32), how they were made)."""
    recipe = run.recipe
    source, asked_of = run.counted(use, device)
    labels = balanced_labels(n, len(run.classes))
    rows, hashes = [], []
    sampling = 0.0
    with tqdm(total=n, unit="img", desc="sampling", disable=quiet, dynamic_ncols=True) as bar:
        for start in range(0, n, source.batch):
            stop = min(n, start + source.batch)
            began = time.monotonic()
            images = source(
                range(first_seed + start, first_seed + stop), None if labels is None else labels[start:stop]
            )
            sampling += time.monotonic() - began
            rows.append(features_of(extract, images))
            hashes.append(hash_images(images))
            bar.update(stop - start)
    saved = run.checkpoint
    own, weaker = asked_of()
    asked = own + weaker
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
        "images_per_second": round(n / sampling, 2),
        "machine": describe(device),
    }
    return np.concatenate(rows), np.concatenate(hashes), facts


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


def cached_features(extract: Extractor, data: Dataset, quiet: bool = True) -> np.ndarray:
    """Return the features (N, d) of real images, computed once per content and extractor.

    The cache lies under ``$XDG_CACHE_HOME/sfumato/features`` (``~/.cache``) and is keyed by the hashes of the pixels in
    their order, of the weights, and of everything the extractor says about itself.
    """
    order = hashlib.sha256(np.ascontiguousarray(data.image_hashes).tobytes()).hexdigest()
    facts = [order, extract.name, extract.weights_hash, extract.describe()]
    key = hashlib.sha256(canonical(facts).encode()).hexdigest()[:32]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sfumato" / "features"
    file = root / f"{key}.npy"
    if file.exists():
        try:
            stored = np.load(file, allow_pickle=False)
        except (ValueError, OSError, EOFError):
            stored = None
        if stored is not None and stored.shape == (len(data), extract.dimension):
            return stored
    parts = []
    with tqdm(total=len(data), unit="img", desc=f"features of {data.name} {data.split}", disable=quiet) as bar:
        for images in data.images.split(500):
            parts.append(features_of(extract, images))
            bar.update(len(images))
    features = np.concatenate(parts)
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
