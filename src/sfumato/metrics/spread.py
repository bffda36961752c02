"""A mean over training seeds, with an interval that holds the spread of trainings and the noise of images.

Seed s of S gives the score

    y_s = mu + u_s + g + e_s      u_s  ~ (0, tau^2)     what this training came to
                                  g    ~ (0, c^2)       noise of the images that all seeds share: one reference, and
                                                        generated images of the same seeds
                                  e_s  ~ (0, e^2)       noise of its own images

and mu is what one asks for: the mean over all trainings of the recipe.  With s^2 the sample variance of the y_s,

    mean       m = (1/S) sum_s y_s
    own seeds  r_1 = t_{S-1} sqrt(s^2 / S)              Hartung and Knapp's interval
    shared     r_2 = t_{G-1} c                          the jackknife's, of G groups
    interval   m +- sqrt(r_1^2 + r_2^2)                 Zou and Donner's sum of two independent parts
    tau^2      = max(0, s^2 - e^2)                      the variance-component estimator of Hedges and Olkin

`s^2 / S` estimates (tau^2 + e^2) / S whatever tau is, so that nothing is assumed of tau and r_1 is exact for normal
noise; it cannot see g, which moves all seeds alike.  c^2 is the mean covariance of two seeds' jackknife values (the
same groups are left out of each), and e^2 is the rest of a seed's variance.  Where the groups do not pair up, all of
the image noise counts as shared, which can only widen the interval.

Seeds weigh alike.  The weights 1 / (tau^2 + e_s^2) of DerSimonian and Laird would favour the seeds that came out well,
since a distance that is smaller has a smaller standard error: their mean is biased down.

Coverage, simulated with normal noise (tests/metrics/test_spread.py), for tau from 0 to 3 e and c from 0 to 2 e: 95 to
98% for S = 3 and 5; for S = 2 it is 95 to 99%, above 98% where c >= e.  Without r_2 it falls to 42% (S = 5, c = 2 e).
With S = 2 the quantile is 12.7: two seeds say little, and the interval says so.

References:
    Hartung, Knapp. On Tests of the Overall Treatment Effect in Meta-analysis with Normally Distributed Responses. 2001.
        https://doi.org/10.1002/sim.791
    Hedges, Olkin. Statistical Methods for Meta-Analysis, chapter 9. 1985.
    DerSimonian, Laird. Meta-analysis in Clinical Trials. 1986. https://doi.org/10.1016/0197-2456(86)90046-2
    Zou, Donner. Construction of Confidence Limits about Effect Measures: A General Approach. 2008.
        https://doi.org/10.1002/sim.3095
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.metrics.jackknife import GROUPS, student
from sfumato.metrics.score import Comparison, Score, compare, paired

POWER = 0.8  # chance with which a budget would tell the difference that was measured
MOST_SEEDS = 1000


@dataclass(frozen=True, slots=True)
class Spread:
    """Scores of the trainings of one recipe, or differences between two.

    Arguments:
        values: y_s of each training seed, one or more.
        own: e^2, variance of the noise of one seed's own images.
        shared: c^2, variance of the noise that all seeds share.

    With one seed nothing is known of other trainings: all noise counts as shared, and the interval is that of images.
    """

    values: tuple[float, ...]
    own: float
    shared: float

    @property
    def mean(self) -> float:
        """The mean m over the seeds."""
        return float(np.mean(self.values))

    @property
    def between(self) -> float:
        """The sample variance s^2 of the seeds, tau^2 + e^2 in expectation; 0 for one seed."""
        return float(np.var(self.values, ddof=1)) if len(self.values) > 1 else 0.0

    @property
    def tau(self) -> float:
        """Standard deviation of trainings, without the noise of images."""
        return math.sqrt(max(0.0, self.between - self.own))

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the mean over all trainings; of images alone for one seed."""
        reach = math.hypot(*self._reaches(len(self.values)))
        return self.mean - reach, self.mean + reach

    def _reaches(self, seeds: int, power: float = 0.0) -> tuple[float, float]:
        """Return r_1 and r_2 for a number of seeds, with the quantile of a power added to that of the interval."""

        def quantile(freedom: int) -> float:
            return student(0.975, freedom) + (student(power, freedom) if power else 0.0)

        first = quantile(seeds - 1) * math.sqrt(self.between / seeds) if seeds > 1 else 0.0
        return first, quantile(GROUPS - 1) * math.sqrt(self.shared)

    def seeds_to_tell(self) -> int | None:
        """Return with how many seeds of as many images a difference as large as the mean is told with power 80%.

        Returns:
            At least 2; None for one seed, whose spread is unknown, and where not even 1,000 seeds would do.
        """
        if len(self.values) < 2:
            return None
        enough = (k for k in range(2, MOST_SEEDS + 1) if math.hypot(*self._reaches(k, POWER)) <= abs(self.mean))
        return next(enough, None)

    def images_to_tell(self) -> float | None:
        """Return how many times as many images, generated and real, tell the mean with as many seeds, power 80%.

        Returns:
            The factor; None where the spread of trainings alone hides it.
        """
        seeds = len(self.values)
        first, second = self._reaches(seeds, POWER)
        trainings = first**2 * (self.tau**2 / self.between if self.between else 0.0)
        left = self.mean**2 - trainings
        return (first**2 - trainings + second**2) / left if left > 0 else None


def spread(values: Sequence[float], errors: Sequence[float], left_out: Sequence[Sequence[float]] = ()) -> Spread:
    """Return the spread of scores over training seeds.

    Arguments:
        values: (S,) scores y_s.
        errors: (S,) their standard errors, of images.
        left_out: (S, G) their jackknife's values, where group k of one seed is related to group k of another; () where
            they do not pair up, and all image noise counts as shared.
    """
    noise, seeds = float(np.mean(np.square(errors))), len(values)
    if seeds < 2 or len(left_out) == 0:
        return Spread(tuple(values), 0.0, noise)
    apart = np.asarray(left_out) - np.mean(left_out, axis=1, keepdims=True)
    groups = apart.shape[1]
    pairs = np.square(apart.sum(axis=0)).sum() - np.square(apart).sum()  # of two different seeds, each twice
    shared = max(0.0, float(pairs) * (groups - 1) / groups / (seeds * (seeds - 1)))
    return Spread(tuple(values), max(0.0, noise - shared), shared)


def over_seeds(scores: Sequence[Score]) -> Spread:
    """Return the spread of one row's scores, of one protocol, over its training seeds."""
    left_out = [score.left_out for score in scores]
    pair_up = len({len(each) for each in left_out}) == 1 and left_out[0]
    return spread([s.value for s in scores], [s.se for s in scores], left_out if pair_up else ())


def differences(first: Sequence[Score], second: Sequence[Score]) -> Spread:
    """Return the spread over training seeds of the second row's scores minus the first's, seed by seed.

    Arguments:
        first: A score for each training seed.
        second: As many, of the same seeds in the same order.
    """
    pairs = list(zip(first, second, strict=True))
    found = [paired(a, b) for a, b in pairs]
    errors = [math.hypot(a.se, b.se) if e is None else e.se for (a, b), e in zip(pairs, found)]
    left_out = [e.left_out for e in found if e is not None]
    return spread([b.value - a.value for a, b in pairs], errors, left_out if len(left_out) == len(pairs) else ())


def compare_over_seeds(first: Sequence[Score], second: Sequence[Score], varied: Collection[str] = ()) -> Comparison:
    """Compare two rows by their training seeds: one seed by its images (`compare`), several by `differences`.

    Arguments:
        first: A score for each training seed.
        second: As many, of the same seeds in the same order.
        varied: Fields in which their protocols may differ (`compare`).
    """
    alone = [compare(a, b, varied) for a, b in zip(first, second, strict=True)]
    if len(alone) == 1:
        return alone[0]
    found = differences(first, second)
    low, high = found.interval
    return Comparison(found.mean, (low, high), not low <= 0 <= high, alone[0].better, alone[0].provenance)
