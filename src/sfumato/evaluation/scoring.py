"""Score a run against real images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from sfumato.data.dataset import Dataset
from sfumato.data.streaming import Stream
from sfumato.evaluation.generated import Output, generate, pixels_of
from sfumato.evaluation.panels import CHECKS, FLOOR_REPEATS, PANELS, Evidence, distance, expand, view_of, views
from sfumato.evaluation.real import balanced, cached_features, identity, reference_of
from sfumato.metrics import rules
from sfumato.metrics.features import Extractor, extractor, stream
from sfumato.metrics.memorization import copies
from sfumato.metrics.protocol import canonical
from sfumato.metrics.saturation import Saturation
from sfumato.metrics.score import METRICS, Score, check_sizes
from sfumato.processes.machine import default_device, keep_freed_memory
from sfumato.processes.ranks import join
from sfumato.runs.checkpoint import replace_json
from sfumato.runs.run import Run, load_data, training_data
from sfumato.sources import balanced_labels


@dataclass(frozen=True)
class Result:
    """What an evaluation found.

    Attributes:
        run: Directory of the run.
        recipe: Name of its recipe.
        scores: One per metric, each with its floor.
        provenance: What made them: weights, sampler, NFE, seeds, machine, seconds.
        path: The JSON file that holds all this.
        tables: Rows by name, of the measures that are tables.
        curves: Numbers of curves by name.
        panels: What the pictures show, by name; the command line draws them.
    """

    run: Path
    recipe: str
    scores: tuple[Score, ...]
    provenance: dict[str, Any]
    path: Path
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    panels: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; panels are pictures and stay out."""
        return {
            "run": self.run.name,
            "recipe": self.recipe,
            "scores": [score.to_json() for score in self.scores],
            "provenance": self.provenance,
            **({"tables": self.tables} if self.tables else {}),
            **({"curves": self.curves} if self.curves else {}),
        }


def evaluate(
    run: Run,
    *,
    n: int | None = None,
    m: int | None = None,
    extract: str | None = None,
    options: Mapping[str, Any] | None = None,
    metrics: tuple[str, ...] = ("fd", "kid"),
    split: str = "test",
    first_seed: int = 0,
    use: str | None = None,
    root: Path | str | None = None,
    device: torch.device | str | None = None,
    quiet: bool = False,
) -> Result:
    """Score a run against real images.

    Started by `torchrun` it runs in every process; they share the images, and the first computes and writes the scores.

    Arguments:
        run: The run; its recipe says how it is sampled.
        n: Generated images; None for the recipe's choice.
        m: Reference images, drawn from the split; None for all of it. Splits are compared at equal m only.
        extract: Feature extractor; None for the recipe's choice.
        options: The extractor's own, such as weights of "inception".
        metrics: Names of measures: distances (`metrics.score.METRICS`), sets of them, and `measures.PANELS`.
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
    recipe, names = run.recipe, expand(metrics)
    n = n or recipe.evaluate.n
    ranks, where = join(device if device is not None else default_device())
    quiet = quiet or not ranks.first
    if where.type == "cpu":
        keep_freed_memory()
    with ranks.in_turn():
        real, training = load_data(recipe, split, root), cast(Dataset, training_data(recipe, root))
    # a stream has what scoring asks, hashes and draws; a metric that looks at training pixels says what it lacks
    if m is not None:
        real = some(real, m)
    features = extractor(extract or recipe.evaluate.extractor, real.shape, options)
    check_sizes([name for name in names if name in METRICS], n, len(real))
    labels = balanced_labels(n, len(run.classes))
    asked = None if labels is None else labels.numpy()
    for name in names:
        if name in CHECKS:
            CHECKS[name](asked, real, training)
    outputs = {view: output(features, view, real.shape, where) for view in ("features", *sorted(views(names)))}
    notes = [*rules.check_leakage(reference_of(real), real.image_hashes, training.image_hashes)]
    if run.about.get("fingerprint", {}).get("data") not in (None, training.content_hash):
        notes.append("the training images are not the ones at hand: leakage could not be checked")
    if "imported" in run.about:
        notes.append("imported weights, whose training images are not known: leakage could not be checked")
    selected = run.selected(use)
    notes += [_choice(s) for s in selected if s["reference"] == identity(reference_of(real))]
    others = without(training_data(replace(recipe, data=replace(recipe.data, first=None)), root), real)
    pool = others.take(min(len(others), FLOOR_REPEATS * n), seed=0)
    for data in (real, pool):
        cached_features(features, data, quiet, ranks)
    made, facts = generate(run, n, outputs, first_seed=first_seed, use=use, device=where, quiet=quiet, ranks=ranks)
    if not ranks.first:
        return cast(Result, ranks.from_first(None))
    again = rules.check_self_comparison(made["hashes"], real.image_hashes)
    equal = copies(made["hashes"], training.image_hashes)
    facts |= {"exact_copies_of_reference": again, "exact_copies_of_training": int((equal >= 0).sum())}
    if selected:
        facts["selected"] = [dict(choice) for choice in selected]
    tried = tried_on(run, real.content_hash, facts)
    if tried > 1:
        facts["settings_scored_on_this_reference"] = tried
        notes.append(f"{tried} settings of this run were scored on this reference: the best of them is selected on it")
    evidence = Evidence(
        extract=features,
        made=made,
        # where class counts were chosen, jackknife groups are dealt within classes: else class noise is counted twice
        labels=asked,
        copies=equal,
        real=real,
        training=training,
        pool=pool,
        real_labels=real.labels.numpy() if real.labels is not None and balanced(real) else None,
        facts=facts,
        notes=tuple(notes),
        first_seed=first_seed,
        quiet=quiet,
    )
    scores: list[Score] = []
    found: dict[str, dict[str, Any]] = {"tables": {}, "curves": {}, "panels": {}}
    for name in names:
        if name in METRICS:
            scores.append(distance(name, evidence))
            continue
        more = PANELS[name](evidence)
        scores += more.scores
        for kind, into in found.items():
            into |= getattr(more, kind)
    decides = [[s.protocol.to_json() for s in scores], facts, sorted(found["tables"])]
    key = hashlib.sha256(canonical(decides).encode()).hexdigest()[:8]
    path = run.path / "results" / f"{features.name}-{split}-n{n}-{key}.json"
    result = Result(run.path, recipe.name, tuple(scores), facts, path, **found)
    path.parent.mkdir(exist_ok=True)
    replace_json(path, result.to_json())
    return ranks.from_first(result)


def output(extract: Extractor, view: str, shape: tuple[int, int, int], device: torch.device) -> Output:
    """Return how a view of generated images is computed, on the device that made them."""
    if view == "pixels":
        return pixels_of(shape)
    if view == "saturation":
        extract, view = Saturation(shape), "features"
    compute, width, named = view_of(extract, view)
    facts = [named.name, named.weights_hash, named.describe(), view]

    def rows(images: torch.Tensor) -> np.ndarray:
        if view == "logits":
            return compute(images.to(device)).cpu().numpy()
        return next(stream(named, [images.to(device)]))

    return Output(rows, width, facts)


def some(data: Dataset, m: int) -> Dataset:
    """Return m images of a dataset, equally many of each class if it has equally many.

    Raises:
        ValueError: If it has fewer.
    """
    if not 0 < m <= len(data):
        raise ValueError(f"m must lie in [1, {len(data)}], the images of {data.name} {data.split}; got {m}.")
    if m == len(data):
        return data
    if not balanced(data) or m % len(data.classes):
        return data.take(m, seed=0)
    labels = data.labels.numpy() if data.labels is not None else np.zeros(0)
    share = m // len(data.classes)
    rows = np.concatenate([np.flatnonzero(labels == k)[:share] for k in range(len(data.classes))])
    return data.subset(np.sort(rows).tolist(), note=f"first {share} of each class")


def without(data: Dataset | Stream, other: Dataset) -> Dataset | Stream:
    """Return the images of a dataset that are not in another: a floor is between different real images."""
    known = {bytes(row) for row in other.image_hashes}
    keep = [i for i, row in enumerate(data.image_hashes) if bytes(row) not in known]
    return data if len(keep) == len(data) else data.subset(keep, note=f"without the {other.split} reference")


def _choice(selected: Mapping[str, Any]) -> str:
    """Write how weights were chosen, for a score against the reference that chose them."""
    return (
        f"selected on this reference: the {selected['what']}, best of {selected['candidates']} by {selected['by']} "
        f"(n = {selected['n']})"
    )


def tried_on(run: Run, content_hash: str, facts: Mapping[str, Any]) -> int:
    """Count the settings of a run scored on one reference, this one included: the best of several is selected on it."""
    own = ("checkpoint", "weights", "sampler", "grid", "guidance", "guided", "size")

    def setting(found: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(found.get(key)) for key in own)

    seen = {setting(facts)}
    for file in (run.path / "results").glob("*.json"):
        try:
            tree = json.loads(file.read_text())
            if any(s["protocol"]["reference"]["content_hash"] == content_hash for s in tree["scores"]):
                seen.add(setting(tree["provenance"]))
        except (ValueError, KeyError, TypeError):
            continue  # results of other tools or versions
    return len(seen)


def load_results(run: Run) -> list[dict[str, Any]]:
    """Return every result written for a run, oldest first."""
    files = sorted((run.path / "results").glob("*.json"), key=lambda p: p.stat().st_mtime)
    return [json.loads(file.read_text()) for file in files]
