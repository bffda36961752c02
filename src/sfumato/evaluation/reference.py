"""A reference ready to judge images again and again: while training, and when widths of an average are compared.

It holds the features of real images, computed once (`evaluation.cached_features`), and the rules of a full evaluation:
what was trained on is refused as a reference, and class counts that were chosen are strata of the jackknife.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sfumato.evaluation.real import balanced, cached_features, identity, reference_of
from sfumato.metrics import rules
from sfumato.metrics.features import Extractor, extractor, features_of
from sfumato.metrics.protocol import Reference
from sfumato.metrics.score import Score, measure
from sfumato.metrics.statistics import Features
from sfumato.runs.recipe import Recipe
from sfumato.runs.run import load_data, training_data
from sfumato.sources import balanced_labels

CHUNK = 500  # images whose features are computed at once


@dataclass(frozen=True, eq=False)
class Yardstick:
    """Real images, by their features.

    Attributes:
        features: The extractor.
        reference: Which images.
        real: Their features (m, d).
        strata: Their labels where class counts were chosen, else None.
        notes: Flags of every score.
    """

    features: Extractor
    reference: Reference
    real: Features
    strata: np.ndarray | None
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, recipe: Recipe, root: Path | str | None = None, split: str = "test", extract: str | None = None
    ) -> Yardstick:
        """Make the yardstick of a recipe.

        Arguments:
            recipe: Resolved; says data and extractor.
            root: Data root.
            split: Which real images.
            extract: Extractor; None for the recipe's.

        Raises:
            LeakageError: If the model was trained on images of the split.
        """
        data, training = load_data(recipe, split, root), training_data(recipe, root)
        features = extractor(extract or recipe.evaluate.extractor, data.shape)
        reference = reference_of(data)
        notes = rules.check_leakage(reference, data.image_hashes, training.image_hashes)
        strata = data.labels.numpy() if data.labels is not None and balanced(data) else None
        return cls(features, reference, cached_features(features, data), strata, tuple(notes))

    @property
    def identity(self) -> str:
        """What names the reference in a choice made by it."""
        return identity(self.reference)

    def measure(
        self, metric: str, images: Tensor, labels: Tensor | None, provenance: Mapping[str, Any] | None = None
    ) -> Score:
        """Score images.

        Arguments:
            metric: A name of `metrics.score.METRICS`.
            images: uint8 (n, C, H, W).
            labels: The labels they were asked for, (n,), or None.
            provenance: What else made them.
        """
        made = np.concatenate([features_of(self.features, part) for part in images.split(CHUNK)])
        return measure(
            metric,
            made,
            self.real,
            self.features,
            self.reference,
            strata=(None if labels is None else labels.numpy(), self.strata),
            class_prior="unconditional" if labels is None else "uniform",
            provenance=dict(provenance or {}),
            notes=self.notes,
        )

    @staticmethod
    def labels(n: int, classes: int) -> Tensor | None:
        """Return the labels of n images, classes in equal numbers; None without classes."""
        return balanced_labels(n, classes)
