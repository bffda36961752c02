"""Real images judged against real images: what a score is at each number of images when there is nothing to find.

For each n, two disjoint sets of n images are drawn from one pool, several times over.  The plain Frechet distance is
then all bias and falls on a line  FD = c (1/n + 1/m) = 2 c / n ; the corrected one lies around 0.  The slope says how
many images a comparison needs: a difference below the bias of its own size cannot be trusted in plain values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfumato.data.dataset import Dataset
from sfumato.evaluation.judge import FLOOR_REPEATS, Judge
from sfumato.metrics.features import extractor
from sfumato.metrics.frechet import expected_bias
from sfumato.metrics.metric import find_metric
from sfumato.metrics.score import Score


@dataclass(frozen=True)
class Calibration:
    """Scores of real images by their number.

    Attributes:
        sizes: Numbers of images in each of the two sets.
        scores: By metric, one per size.
        expected: Plain Frechet distance of Gaussian features with the pool's covariance, one per size.
        slope: c of the line FD = 2 c / n through the plain distances; None without "fd" or with one size.
        limit: Its value at infinitely many images, which should be near 0.
    """

    sizes: tuple[int, ...]
    scores: dict[str, tuple[Score, ...]]
    expected: tuple[float, ...]
    slope: float | None
    limit: float | None


def calibrate(
    data: Dataset,
    sizes: Sequence[int],
    *,
    extract: str,
    options: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = ("fd", "kid"),
    repeats: int = FLOOR_REPEATS,
    quiet: bool = False,
) -> Calibration:
    """Score real images against real images at several sizes.

    Arguments:
        data: The pool.
        sizes: Images in each of the two sets; 2 n must not exceed the pool.
        extract: Feature extractor.
        options: The extractor's own.
        metrics: Names of metrics that compare with real images.
        repeats: Draws a size.
        quiet: Whether progress bars are left out.

    Raises:
        ValueError: If a size is too large for the pool or too small for a metric.
    """
    for n in sizes:
        if 2 * n > len(data):
            raise ValueError(
                f"Two disjoint sets of {n:,} need {2 * n:,} images; {data.name} {data.split} has "
                f"{len(data):,}. The largest possible size is {len(data) // 2:,}."
            )
    judge = Judge.against(data, extractor(extract, data.shape, options), quiet=quiet)
    for n in sizes:
        for name in metrics:
            find_metric(name).check(n, n)
    scores: dict[str, tuple[Score, ...]] = {
        name: tuple(judge.halves(name, n, repeats) for n in sizes) for name in metrics
    }
    features = judge.features(judge.extract)
    spectrum = np.maximum(np.linalg.eigvalsh(np.cov(np.asarray(features, np.float64).T)), 1e-12)
    expected = tuple(expected_bias(spectrum, n, n) for n in sizes)
    if "fd" not in scores or len(set(sizes)) < 2:
        return Calibration(tuple(sizes), scores, expected, None, None)
    widths = [s.interval[1] - s.interval[0] for s in scores["fd"]]
    weight = [2 / width for width in widths] if min(widths) > 0 else None  # small sizes say less about the line
    slope, limit = np.polyfit(2 / np.array(sizes), [s.plain for s in scores["fd"]], 1, w=weight)
    return Calibration(tuple(sizes), scores, expected, float(slope), float(limit))
