"""Judge generated images against real ones: the one road from two sets of images to a score, with every rule.

    leakage            training images in a reference that is called held out are refused, elsewhere flagged
    self-comparison    more than 1% of the images equal to reference images are refused; fewer are counted
    sizes              a metric that needs more images is refused before any image is made
    strata             jackknife groups are dealt within classes where the number of each class was chosen: labels asked
                       of a model, a reference with equally many images of each class
    floor              real images outside the reference, as many as were generated and drawn as they were, or why not
    flags              what a reader must know travels with the score (`metrics.flags`)

`evaluate`, scores while training, the choice of an average, studies and `fd` all ask it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sfumato.core.condition import Label
from sfumato.data.dataset import Dataset
from sfumato.data.hashing import hash_images
from sfumato.data.streaming import Stream
from sfumato.evaluation.real import (
    balanced,
    balanced_classes,
    cached_features,
    cached_score,
    content_of,
    identity,
    order_of,
    reference_of,
)
from sfumato.metrics import rules
from sfumato.metrics.calibration import floor as floor_of
from sfumato.metrics.features import Extractor, ImageShape, extractor, features_of
from sfumato.metrics.flags import flagged
from sfumato.metrics.memorization import copies
from sfumato.metrics.metric import Metric, expand, find_metric
from sfumato.metrics.protocol import Reference, canonical
from sfumato.metrics.score import Score, measure, with_floor
from sfumato.metrics.statistics import Features
from sfumato.metrics.views import view_key, view_of
from sfumato.runs.recipe import Chosen, Recipe
from sfumato.runs.resolve import check_code, load_data, training_data

FLOOR_REPEATS = 8


@dataclass(frozen=True, eq=False)
class Generated:
    """Images that are judged, by the numbers they became.

    Attributes:
        rows: Arrays (n, d) by view (`metrics.views.view_key`).
        labels: int (n,), the classes they were asked for; None elsewhere.
        prior: "uniform", "training" (as often as in training), "unconditional" or "class NAME": the classes asked for.
        hashes: uint8 (n, 32), of their pixels; None if unknown.
        facts: Provenance.
        codec: Formats of the files they come from; "none" if of none.
        copies: int (n,), the first training image equal to each, or -1; None if unknown.
        first_seed: Seed of the first.
        told: What each was made under; None where it is not known.
    """

    rows: Mapping[str, Features]
    labels: np.ndarray | None = None
    prior: str = "unconditional"
    hashes: np.ndarray | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    codec: str = "none"
    copies: np.ndarray | None = None
    first_seed: int = 0
    told: Label | None = None

    @property
    def n(self) -> int:
        """Number of images."""
        return len(next(iter(self.rows.values())))

    @property
    def strata(self) -> np.ndarray | None:
        """The classes where equally many of each were asked for; None elsewhere."""
        return None if self.prior == "training" else self.labels


@dataclass(frozen=True, eq=False)
class Judge:
    """Real images, and the rules by which others are scored against them.

    Attributes:
        extract: The extractor that was chosen.
        shape: (C, H, W) of the images.
        reference: The real images as a protocol names them.
        features: Gives the numbers (m, d) of the real images by an extractor.
        hashes: uint8 (m, 32), of the real images' pixels.
        strata: int (m,), classes of the real images where the number of each was chosen; None elsewhere.
        notes: Flags of every score.
        real: The real images; None where only their features are known.
        training: The images a model was trained on; None where they are not known.
        pool: Real training images outside the reference, for floors; None for no floors.
        quiet: Whether progress bars are left out.
    """

    extract: Extractor
    shape: ImageShape
    reference: Reference
    features: Callable[[Extractor], Features]
    hashes: np.ndarray
    strata: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    real: Dataset | None = None
    training: Dataset | Stream | None = None
    pool: Dataset | Stream | None = None
    quiet: bool = True
    _drawn: dict[int, Dataset] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        split: str = "test",
        root: Path | str | None = None,
        *,
        m: int | None = None,
        extract: str | None = None,
        options: Mapping[str, Any] | None = None,
        quiet: bool = True,
    ) -> Judge:
        """Return the judge of a recipe's images.

        Arguments:
            recipe: Says data and extractor.
            split: Real images that are the reference.
            root: Data root.
            m: Reference images, drawn from the split; None for all of it.
            extract: Feature extractor; None for the recipe's choice.
            options: The extractor's own.
            quiet: Whether progress bars are left out.

        Raises:
            LeakageError: If the split is called held out and the recipe trains on some of it.
        """
        real, training, notes = measured_on(recipe, split, m, root)
        whole = training
        if recipe.data.first is not None:
            whole = training_data(replace(recipe, data=replace(recipe.data, first=None)), root)
        notes += () if recipe.chosen is None else (_choice(recipe.chosen, reference_of(real)),)
        if extract is None:
            check_code(recipe, "extractor")
        chosen = extractor(extract or recipe.evaluate.extractor, real.shape, options)
        return cls.against(real, chosen, quiet=quiet, notes=notes, training=training, pool=without(whole, real))

    @classmethod
    def against(cls, real: Dataset, extract: Extractor, *, quiet: bool = True, **known: Any) -> Judge:
        """Return the judge with a dataset as the reference, its features cached; `known` are further fields."""
        return cls(extract, real.shape, reference_of(real), lambda one: cached_features(one, real, quiet),
                   real.image_hashes, balanced_classes(real), real=real, quiet=quiet, **known)  # fmt: skip

    @property
    def identity(self) -> str:
        """What names the reference in a choice made by it."""
        return identity(self.reference)

    def view(self, metric: Metric) -> Extractor:
        """Return what computes the numbers that a metric reads.

        Raises:
            ValueError: If the extractor has no such view.
        """
        return view_of(self.extract, metric, self.shape)

    def check(self, metric: str | Metric, n: int) -> None:
        """Refuse a metric that cannot be computed of n images, before any is made.

        Raises:
            ValueError: If the name is unknown, n or m is too small, or the extractor lacks what it reads.
        """
        chosen = find_metric(metric)
        chosen.check(n, self.reference.n)
        self.view(chosen)

    def seen(
        self,
        images: Tensor,
        metrics: tuple[str, ...],
        labels: Label | None = None,
        prior: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> Generated:
        """Return images as the numbers that metrics read.

        Arguments:
            images: uint8 (n, C, H, W).
            metrics: Names.
            labels: int (n,), their classes where the number of each was chosen.
            prior: The classes asked for, in words; by default "uniform" with labels, "unconditional" without.
            facts: Provenance.

        Raises:
            SelfComparisonError: If more than 1% of them are reference images.
        """
        chosen = [find_metric(name) for name in metrics]
        rows = {view_key(metric): features_of(self.view(metric), images) for metric in chosen}
        classes = labels.numpy() if isinstance(labels, Tensor) else None
        prior = prior or ("unconditional" if labels is None else "uniform")
        return self.checked(Generated(rows, classes, prior, hash_images(images), facts or {}))

    def checked(self, made: Generated) -> Generated:
        """Return images with the number of copies among them in their facts.

        Raises:
            SelfComparisonError: If more than 1% of them are reference images.
        """
        assert made.hashes is not None
        facts = {**made.facts, "exact_copies_of_reference": rules.check_self_comparison(made.hashes, self.hashes)}
        if self.training is None:
            return replace(made, facts=facts)
        equal = copies(made.hashes, self.training.image_hashes)
        return replace(made, facts={**facts, "exact_copies_of_training": int((equal >= 0).sum())}, copies=equal)

    def score(self, metric: str | Metric, made: Generated, *, floor: bool = True) -> Score:
        """Score images by one metric.

        Arguments:
            metric: A metric, or its name.
            made: The images, with the view that the metric reads.
            floor: Whether the same score of real images stands beside it.

        Raises:
            ValueError: If there are too few images for the metric.
        """
        chosen = find_metric(metric)
        chosen.check(made.n, self.reference.n)
        extract, strata = self.view(chosen), (made.strata, self.strata)
        real = self.features(extract) if chosen.against_reference else None
        drawn = floor and chosen.floor == "pool" and self.pool is not None
        without_floor = drawn and not self.has_floor(made.n, made.strata is not None)
        score = measure(
            chosen,
            made.rows[view_key(chosen)],
            real,
            extract,
            self.reference,
            strata=strata,
            class_prior=made.prior,
            codec=made.codec,
            provenance=dict(made.facts),
            notes=self.notes + ((flagged("no-floor"),) if without_floor else ()),
        )
        if drawn and not without_floor:
            return with_floor(score, self.floor(chosen, made.n, made.strata is not None))
        return replace(score, floor=self._of_reference(chosen, score)) if floor and not drawn else score

    def _of_reference(self, metric: Metric, score: Score) -> Score | None:
        """Return the score of the reference itself; None for a metric whose floor is that of other images."""
        if metric.floor != "reference":
            return None
        extract = self.view(metric)
        own = measure(
            metric,
            self.features(extract),
            self.features(extract),
            extract,
            self.reference,
            strata=(self.strata, self.strata),
        )
        facts = {"floor": "the reference itself"}
        protocol = replace(score.protocol, n=own.n, class_prior="real images", provenance=facts)
        return replace(own, flags=(), protocol=protocol)

    def floor(self, metric: str | Metric, n: int, classes: bool, repeats: int = FLOOR_REPEATS) -> Score:
        """Return the score of n real images outside the reference, computed once.

        Arguments:
            metric: A metric, or its name.
            n: Images of each draw.
            classes: Whether equally many of each class are drawn, as beside a model that is asked for classes.
            repeats: Draws whose mean is taken.
        """
        chosen = find_metric(metric)
        extract, pool = self.view(chosen), self.drawn(n)
        labels = _labels(pool) if classes else None
        real = self.features(extract)[: None if chosen.against_reference else 0]
        assert self.real is not None
        options = chosen.options_with((labels, self.strata))
        facts = ["floor 2", order_of(pool), order_of(self.real), extract.name, extract.weights_hash, extract.describe(),
                 chosen.name, chosen.version, options, n, repeats, self.reference.split]  # fmt: skip
        facts += [hashlib.sha256(drawn.tobytes()).hexdigest() for drawn in (labels, self.strata) if drawn is not None]
        return cached_score(facts, lambda: floor_of(
            chosen, cached_features(extract, pool, self.quiet), n, extract, self.reference, reference_features=real,
            labels=labels, reference_labels=self.strata, repeats=repeats,
        ))  # fmt: skip

    def halves(self, metric: str | Metric, n: int, repeats: int = FLOOR_REPEATS) -> Score:
        """Return the score of n of the reference's images against n others of them, mean over several draws."""
        chosen = find_metric(metric)
        extract = self.view(chosen)
        return floor_of(chosen, self.features(extract), n, extract, self.reference, m=n, repeats=repeats)

    def drawn(self, n: int) -> Dataset:
        """Return the real images from which floors at n images are drawn."""
        if n not in self._drawn:
            assert self.pool is not None
            self._drawn[n] = self.pool.take(min(len(self.pool), FLOOR_REPEATS * n), seed=0)
        return self._drawn[n]

    def has_floor(self, n: int, classes: bool) -> bool:
        """Return whether there are n other real images, with classes equally many of each."""
        pool = self.drawn(n)
        labels = _labels(pool) if classes else None
        if labels is None or not len(pool):
            return n <= len(pool)
        counts = np.unique(labels, return_counts=True)[1]
        shares = n // len(counts) + (np.arange(len(counts)) < n % len(counts))
        return bool((shares <= counts).all())


def measured_on(
    recipe: Recipe, split: str, m: int | None = None, root: Path | str | None = None
) -> tuple[Dataset, Dataset | Stream, tuple[str, ...]]:
    """Return the real images that a run is measured on, its training images, and a flag if some are in both.

    Arguments:
        recipe: Says the data.
        split: Part of the data.
        m: How many of its images; None for all of them.
        root: Data root.

    Raises:
        LeakageError: If the split is called held out and the recipe trains on some of it.
    """
    real, training = load_data(recipe, split, root), training_data(recipe, root)
    real = real if m is None else some(real, m)
    return real, training, rules.check_leakage(reference_of(real), real.image_hashes, training.image_hashes)


def judged_by(recipe: Recipe, split: str, root: Path | str | None = None) -> dict[str, Any]:
    """Return hashes of the real images that a recipe is judged by: the reference, and the training images of floors.

    What is told of training images belongs to it: a model that was taught other labels is another model.

    Arguments:
        recipe: Says the data.
        split: Real images that are the reference.
        root: Data root.
    """
    whole = replace(recipe, data=replace(recipe.data, first=None))
    real, training = load_data(recipe, split, root), training_data(whole, root)
    facts = {"reference": real.content_hash, "n": len(real), "training": order_of(training)}
    taught = {k: v for k, v in content_of(training, bool(recipe.data.labels)).items() if k != "order"}
    facts |= {"taught": hashlib.sha256(canonical(taught).encode()).hexdigest()} if taught else {}
    return facts | content_of(real)


def other_images(stored: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether a stored result is of other real images than those of today (`judged_by`).

    Arguments:
        stored: With "data", what was known of the images; of an earlier version with "scores" only, by name or in a
            list, of which those against as many images are compared.
        now: The same of today.
    """
    if isinstance(stored.get("data"), Mapping):  # an earlier version recorded less
        return any(now.get(key) != value for key, value in stored["data"].items())
    scores = stored.get("scores", [])
    references = [s["protocol"]["reference"] for s in (scores.values() if isinstance(scores, Mapping) else scores)]
    return any(one["n"] == now["n"] and one["content_hash"] != now["reference"] for one in references)


def other_rules(stored: Mapping[str, Any], metrics: Iterable[str], recipe: Recipe) -> bool:
    """Return whether a stored result was scored by another version of a metric, or other features, than today.

    Arguments:
        stored: With "scores", by name or in a list.
        metrics: Names of the metrics that are asked for.
        recipe: Resolved; it names the extractor.
    """
    assert recipe.shape is not None
    shape = (recipe.shape.channels, recipe.shape.height, recipe.shape.width)
    known = {metric.name: metric for metric in map(find_metric, expand(tuple(metrics)))}
    extract = extractor(recipe.evaluate.extractor, shape)
    features = (extract.weights_hash, canonical(extract.describe()))
    scores = stored.get("scores", [])
    for score in scores.values() if isinstance(scores, Mapping) else scores:
        protocol = score["protocol"]
        metric = known.get(protocol["metric"])
        rule = (protocol["version"], protocol["options"].get("code", ""))
        if metric is not None and rule != (metric.version, metric.code):
            return True
        read = (protocol["weights_hash"], canonical(protocol["features"]))
        if protocol["extractor"] == extract.name and read != features:
            return True
    return False


def _choice(chosen: Chosen, reference: Reference) -> str:
    """Return the flag of a score of a recipe that is the best of several."""
    where = "this reference" if chosen.reference == identity(reference) else f"{chosen.split} images"
    return f"the recipe is the best of {chosen.candidates} tried, chosen by {chosen.by} on {where} (n = {chosen.n})"


def _labels(data: Dataset) -> np.ndarray | None:
    return None if data.labels is None else data.labels.numpy()


def each(names: Iterable[str], refused: dict[str, str], make: Callable[[str], Any]) -> dict[str, Any]:
    """Return what is made of each name, and put the reasons of those that cannot be made into `refused`.

    Raises:
        ValueError: The first reason, if none can be made.
    """
    found: dict[str, Any] = {}
    first: ValueError | None = None
    for name in names:
        try:
            found[name] = make(name)
        except ValueError as error:
            refused[name], first = str(error), first or error
    if first is not None and not found:
        raise first
    return found


def some(data: Dataset, m: int) -> Dataset:
    """Return m images of a dataset, equally many of each class if it has equally many.

    Raises:
        ValueError: If it has fewer.
    """
    if not 0 < m <= len(data):
        raise ValueError(f"m must lie in [1, {len(data)}], the images of {data.name} {data.split}; got {m}.")
    if m == len(data):
        return data
    if data.labels is None or not balanced(data) or m % len(data.classes):
        return data.take(m, seed=0)
    share = m // len(data.classes)
    rows = np.concatenate([np.flatnonzero(data.labels.numpy() == k)[:share] for k in range(len(data.classes))])
    return data.subset(np.sort(rows).tolist(), note=f"first {share} of each class")


def without(data: Dataset | Stream, other: Dataset) -> Dataset | Stream:
    """Return the images of a dataset that are not in another: a floor is between different real images."""
    known = {bytes(row) for row in other.image_hashes}
    keep = [i for i, row in enumerate(data.image_hashes) if bytes(row) not in known]
    return data if len(keep) == len(data) else data.subset(keep, note=f"without the {other.split} reference")
