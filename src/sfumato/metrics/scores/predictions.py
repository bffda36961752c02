"""Scores of class predictions alone; the arithmetic is in `metrics.inception_score`."""

from __future__ import annotations

from sfumato.metrics import inception_score as arithmetic
from sfumato.metrics.jackknife import GROUPS
from sfumato.metrics.metric import Metric


def inception_score() -> Metric:
    """Inception Score: sharp and varied class predictions (is); its floor is that of real images, a ceiling."""
    return Metric(
        "IS",
        1,
        lambda x, y, strata, members: arithmetic.inception_score(x).estimate,
        "mean over parts after a seeded shuffle",
        {"splits": 10},
        "higher",
        least=2 * GROUPS,
        view="logits",
        against_reference=False,
    )
