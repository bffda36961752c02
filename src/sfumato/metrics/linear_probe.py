"""A linear probe: how much of a class is laid open in features, measured by the simplest classifier.

Multinomial logistic regression is trained on the features of training images, standardised by their own mean and
standard deviation, and asked about images that nothing has seen. Its strength of regularisation 1 / C is chosen on a
fifth of the training images, which are then used again; held-out images take no part in any choice.

References:
    Alain, Bengio. Understanding Intermediate Layers Using Linear Classifier Probes. 2016.
        https://arxiv.org/abs/1610.01644
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfumato.core.noise import uniform
from sfumato.core.optional import optional
from sfumato.metrics.jackknife import Estimate
from sfumato.metrics.prdc import NORMAL, share
from sfumato.metrics.statistics import Features

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of C; the larger, the weaker the regularisation
FIFTH = 5
STEPS = 500  # of the optimiser, at most


class ProbeError(ValueError):
    """Images or a run that cannot be probed."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What a linear classifier read in features.

    Attributes:
        right: Whether each held-out image was named right, bool (m,).
        chosen: The C of its regularisation.
        validated: Accuracy on the fifth of the training images that chose it, from which blocks may be chosen too.
    """

    right: np.ndarray
    chosen: float
    validated: float

    @property
    def accuracy(self) -> Estimate:
        """The share of held-out images named right, with Wilson's 95% interval."""
        return share(float(self.right.sum()), len(self.right))

    def above(self, other: Reading) -> Estimate:
        """Return how much more of the same images this names right, with a 95% interval of the paired difference."""
        difference = self.right.astype(float) - other.right
        mean, m = float(difference.mean()), len(difference)
        se = math.sqrt(
            max(float(difference.var()), 1 / m**2) / m
        )  # two that agree everywhere are not known to be equal
        return Estimate(mean, (mean - NORMAL * se, mean + NORMAL * se), se, mean, groups=0)


def read_out(
    train: Features, labels: np.ndarray, held: Features, held_labels: np.ndarray, strengths: Sequence[float] = STRENGTHS
) -> Reading:
    """Train a linear classifier on features and ask it about held-out images.

    Arguments:
        train: Features of training images, (n, d).
        labels: Their classes, int (n,), at least two different ones.
        held: Features of held-out images, (m, d).
        held_labels: Their classes, int (m,).
        strengths: Values of C, of which the best on a fifth of the training images is taken; the smaller where equal.

    Raises:
        ProbeError: If scikit-learn is missing, or there are fewer than two classes to tell apart.
    """
    linear = optional("sklearn.linear_model", "learn", "A linear probe", ProbeError)
    threads = optional("threadpoolctl", "learn", "A linear probe", ProbeError)
    if len(np.unique(labels)) < 2:
        raise ProbeError("A probe tells classes apart, and these training images are all of one. Take more (--n).")
    mean, spread = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    scaled, asked = ((rows - mean) / np.where(spread > 0, spread, 1) for rows in (train, held))
    aside = _a_fifth(labels)

    def fitted(c: float, rows: np.ndarray) -> Any:
        model = linear.LogisticRegression(C=c, max_iter=STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fit that stops early is judged by its accuracy
            return model.fit(scaled[rows], labels[rows])

    with threads.threadpool_limits(1):  # sums in one order, whatever the machine
        tried = [(float((fitted(c, ~aside).predict(scaled[aside]) == labels[aside]).mean()), -c) for c in strengths]
        best, c = max(tried)
        right = fitted(-c, np.ones(len(labels), bool)).predict(asked) == held_labels
    return Reading(np.asarray(right), -c, best)


def _a_fifth(labels: np.ndarray) -> np.ndarray:
    """Return which images choose the regularisation, bool (n,): one in five of each class, by a seeded order."""
    order = np.argsort(uniform(range(len(labels)), purpose="probe fold").numpy(), kind="stable")
    aside = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        aside[[i for i in order if labels[i] == label][::FIFTH]] = True
    return aside if 0 < aside.sum() < len(labels) and len(np.unique(labels[~aside])) > 1 else order < len(labels) // 2


def principal(train: Features, held: Features, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of images along the first principal axes of training images, (n, width) and (m, width).

    Arguments:
        train: Training images as rows, (n, D).
        held: Other images as rows, (m, D).
        width: Number of axes, of which there are at most min(n, D).
    """
    mean = train.mean(0, dtype=np.float64)
    axes = np.linalg.svd(train - mean, full_matrices=False)[2][:width].T
    return (train - mean) @ axes, (held - mean) @ axes
