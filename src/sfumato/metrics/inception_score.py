"""Inception Score: how sharp the class predictions of single images are, and how broad their mean is.

    IS = exp( mean_i KL( p(y|x_i) || mean_j p(y|x_j) ) )

taken in 10 parts of the images after a seeded shuffle, and averaged over the parts.  p is the softmax of the Inception
network's 1008 logits *without* the bias.  A set of sharp predictions, equally many of each of K classes, scores K.

The standard deviation over parts is what papers print; it is not an interval.  The interval here is a jackknife of the
score of the whole set, placed around the mean over parts.  Predictions of another classifier give `IS[name]`.

References:
    Salimans, Goodfellow, Zaremba, Cheung, Radford, Chen. Improved Techniques for Training GANs. 2016.
        https://arxiv.org/abs/1606.03498 (section 4)
    Barratt, Sharma. A Note on the Inception Score. 2018. https://arxiv.org/abs/1801.01973
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfumato.core.noise import uniform
from sfumato.metrics.jackknife import GROUPS, Estimate, check_groups, group_of, jackknife, student
from sfumato.metrics.statistics import Features, check_features


@dataclass(frozen=True, slots=True)
class InceptionScore:
    """An Inception Score.

    Arguments:
        estimate: Mean over parts, with a jackknife interval.
        spread: Standard deviation over parts (ddof 0), as papers print it.
        parts: Score of each part.
    """

    estimate: Estimate
    spread: float
    parts: np.ndarray


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log-probabilities in float64."""
    x = np.asarray(logits, np.float64)
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def score_of(log_p: np.ndarray) -> float:
    """Return the score of one part from log-probabilities (n, K), n >= 1."""
    p = np.exp(log_p)
    mean = p.mean(0)
    log_mean = np.log(mean, out=np.zeros_like(mean), where=mean > 0)  # 0 log 0 = 0
    return float(np.exp((p * (np.where(p > 0, log_p, 0) - log_mean)).sum(1).mean()))


def bounds(n: int, splits: int) -> list[tuple[int, int]]:
    """Cut range(n) into `splits` parts [i n // splits, (i + 1) n // splits).

    >>> bounds(7, 3)
    [(0, 2), (2, 4), (4, 7)]
    """
    return [(i * n // splits, (i + 1) * n // splits) for i in range(splits)]


def inception_score(logits: Features, splits: int = 10, seed: int | None = 0, groups: int = GROUPS) -> InceptionScore:
    """Return the Inception Score of class logits.

    Arguments:
        logits: float (n, K), without the bias.
        splits: Number of parts; at most n.
        seed: Seed of the shuffle; None keeps the order.
        groups: Groups of the jackknife; n >= 2 groups.

    Returns:
        The score, its interval and its parts.

    Raises:
        ValueError: If there are fewer images than parts, or too few for the jackknife.
    """
    n = len(check_features(logits, "logits"))
    check_groups(n, n, groups)
    if not 1 <= splits <= n:
        raise ValueError(f"The number of parts must be between 1 and n = {n}, got {splits}.")
    log_p = log_softmax(logits)
    member = group_of(0, n, groups)
    left_out = np.array([score_of(log_p[member != k]) for k in range(groups)])
    whole = jackknife(score_of(log_p), left_out)
    if seed is not None:
        log_p = log_p[np.argsort(uniform(range(n), seed=seed, purpose="inception score").numpy(), kind="stable")]
    parts = np.array([score_of(log_p[start:stop]) for start, stop in bounds(n, splits)])
    value, reach = float(parts.mean()), student(0.975, groups - 1) * whole.se
    estimate = Estimate(value, (value - reach, value + reach), whole.se, value, groups)
    return InceptionScore(estimate, float(parts.std()), parts)
