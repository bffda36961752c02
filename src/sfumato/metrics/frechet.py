"""Frechet distance between two sets of features: the squared 2-Wasserstein distance of their Gaussian summaries.

    FD = |mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^(1/2)

with unbiased covariances.  The last trace is the sum of square roots of the eigenvalues of S_1 S_2.  Two symmetric
forms give it without the square root of a non-symmetric matrix:

    eigenvalue form   R^T S_2 R has the same eigenvalues for any R with R R^T = S_1; any n, costs d^3.  R is the
                      Cholesky factor, or V sqrt(l) from S_1 = V l V^T where S_1 is singular
    nuclear norm      |Yc Xc^T|_* / sqrt((n-1)(m-1)), centred rows; exact where covariances are rank-deficient,
                      costs min(n, m)^2 max(n, m); used when min(n, m) <= d

No value is clamped: a small negative number of an unbiased estimate says "not distinguishable from 0".

Finite samples.  For two equal Gaussians with covariance eigenvalues l the plain estimate has the expectation

    (1/n + 1/m) [ sum_i l_i + 1/2 sum_ij l_i l_j (1 + d_ij)/(l_i + l_j) ]        (leading order)

so a plain distance always depends on n.  `frechet` removes the 1/n term by the jackknife and gives an interval;
`frechet_infinity` extrapolates n of the generated set only, along a line in 1/n.

Only this distance over the Inception network's features is called FID.

References:
    Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter. GANs Trained by a Two Time-Scale Update Rule Converge to a
        Local Nash Equilibrium. 2017. https://arxiv.org/abs/1706.08500 (eq. 6)
    Chong, Forsyth. Effectively Unbiased FID and Inception Score and Where to Find Them. 2020.
        https://arxiv.org/abs/1911.07023
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sfumato.core.noise import uniform
from sfumato.metrics.jackknife import (
    GROUPS,
    Estimate,
    Members,
    Strata,
    check_groups,
    deal,
    even,
    jackknife,
    student,
    weights,
)
from sfumato.metrics.statistics import Features, Groups, Moments, check_columns, check_features, check_pair


def frechet_distance(mean_1: np.ndarray, cov_1: np.ndarray, mean_2: np.ndarray, cov_2: np.ndarray) -> float:
    """Return the Frechet distance of two Gaussians by the eigenvalue form.

    Arguments:
        mean_1: float64 (d,).
        cov_1: float64 (d, d), symmetric.
        mean_2: float64 (d,).
        cov_2: float64 (d, d), symmetric.

    Returns:
        The squared distance, never clamped.

    >>> frechet_distance(np.zeros(2), np.eye(2), np.ones(2), 4 * np.eye(2))
    4.0
    """
    if not (len(mean_1) == len(mean_2) == len(cov_1) == len(cov_2)):
        raise ValueError(
            f"Dimensions differ: means of {len(mean_1)} and {len(mean_2)} numbers, "
            f"covariances of {len(cov_1)} and {len(cov_2)} rows."
        )
    root = _root(cov_1)
    inner = root.T @ cov_2 @ root
    sqrt_trace = np.sqrt(np.maximum(np.linalg.eigvalsh((inner + inner.T) / 2), 0)).sum()
    return float(np.sum((mean_1 - mean_2) ** 2) + np.trace(cov_1) + np.trace(cov_2) - 2 * sqrt_trace)


def _root(cov: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(cov)
        return vectors * np.sqrt(np.maximum(values, 0))  # rounding puts zero eigenvalues at +-1e-17


def frechet_plain(x: Features, y: Features) -> float:
    """Return the Frechet distance of two feature sets in the form that is exact for their sizes.

    Arguments:
        x: Generated features (n, d), n >= 2.
        y: Reference features (m, d), m >= 2.

    Returns:
        The textbook value: biased upwards by finite n and m, never clamped.
    """
    x, y = check_pair(x, y)
    if min(len(x), len(y)) <= x.shape[1]:
        return _nuclear(np.asarray(x, np.float64), np.asarray(y, np.float64))
    a, b = Moments.over(x), Moments.over(y)
    return frechet_distance(a.mean, a.cov, b.mean, b.cov)


def _nuclear(x: np.ndarray, y: np.ndarray, wx: np.ndarray | None = None, wy: np.ndarray | None = None) -> float:
    (mean_x, x), (mean_y, y) = _rows(x, wx), _rows(y, wy)
    singular = np.linalg.svd(x @ y.T, compute_uv=False)
    return float(np.sum((mean_x - mean_y) ** 2) + np.sum(x * x) + np.sum(y * y) - 2 * singular.sum())


def _rows(x: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean, and centred rows whose Gram matrix is the covariance; rows of weight 0 are dropped."""
    if weights is None:
        mean = x.mean(0)
        return mean, (x - mean) / math.sqrt(len(x) - 1)
    x, w = x[weights > 0], weights[weights > 0, None]
    mean = (w * x).sum(0) / w.sum()
    return mean, (x - mean) * np.sqrt(w / (len(x) - 1))


def frechet(
    x: Features | Groups,
    y: Features | Groups,
    strata: Strata = (None, None),
    groups: int = GROUPS,
    level: float = 0.95,
    members: Members = (None, None),
) -> Estimate:
    """Estimate the Frechet distance without its 1/n bias, with an interval.

    Both sets leave out a share 1/G at a time, together, so that both biases go.  The interval covers the sampling
    noise of generated *and* reference images; it says nothing about other training seeds.

    Arguments:
        x: Generated features (n, d), or a stream of their moments.
        y: Reference features (m, d), or a stream of their moments.
        strata: Labels of either set where the number of each class was chosen; a stream has dealt its groups already.
        groups: Groups G of the jackknife; min(n, m) >= 2 G.  A stream brings its own.
        level: Confidence of the interval.
        members: Groups of either set's images if they were dealt elsewhere; else `jackknife.deal` deals them.

    Returns:
        The estimate; `plain` is the textbook value.

    Raises:
        ValueError: For unequal dimensions, fewer than 2 G rows, or streams shorter than their dimension (their
            rank-deficient distance needs the features themselves).
    """
    if isinstance(x, Groups) or isinstance(y, Groups):
        brought = x.groups if isinstance(x, Groups) else y.groups if isinstance(y, Groups) else groups
        a, b = _set(x, strata[0], brought, members[0]), _set(y, strata[1], brought, members[1])
        if a.groups != b.groups:
            raise ValueError(f"Both streams must have the same number of groups, got {a.groups} and {b.groups}.")
        if min(a.total.n, b.total.n) * (brought - 1) // brought <= a.total.dimension == b.total.dimension:
            raise ValueError(
                f"A stream keeps covariances only, and n = {a.total.n}, m = {b.total.n} are too few for "
                f"d = {a.total.dimension}. Pass the features themselves: their distance is taken by "
                "singular values."
            )
        return _by_moments(a, b, level)
    x, y = check_pair(x, y)
    check_groups(len(x), len(y), groups)
    if min(len(x), len(y)) * (groups - 1) // groups > x.shape[1]:
        return _by_moments(_set(x, strata[0], groups, members[0]), _set(y, strata[1], groups, members[1]), level)
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    in_x, in_y = (
        deal(len(rows), groups, labels) if member is None else member
        for rows, labels, member in zip((x, y), strata, members)
    )
    left_out = [_nuclear(x, y, weights(in_x, strata[0], k), weights(in_y, strata[1], k)) for k in range(groups)]
    return jackknife(frechet_plain(x, y), np.array(left_out), level=level)


def held(y: Features, labels: np.ndarray | None, n: int, groups: int = GROUPS) -> Features | Groups:
    """Return a reference in the form in which several estimates against it need to read it only once.

    Arguments:
        y: Reference features (m, d).
        labels: int (m,), their classes where the number of each was chosen.
        n: Generated images of each estimate.
        groups: Groups of the jackknife.

    Returns:
        The sums of its groups, with which `frechet` gives the same number to the last bit; the features themselves
        where they are needed (few images, or classes that do not divide evenly into groups).
    """
    if min(n, len(y)) * (groups - 1) // groups <= y.shape[1]:
        return y
    member = deal(len(y), groups, labels)
    return Groups.of(y, groups, member) if even(member, labels) else y


@dataclass(frozen=True, slots=True)
class _Set:
    """Moments of one set: of all images, and of all but group k."""

    total: Moments
    leaving_out: Callable[[int], Moments]
    groups: int


def _set(rows: Features | Groups, labels: np.ndarray | None, groups: int, member: np.ndarray | None) -> _Set:
    if not isinstance(rows, Groups):
        member = deal(len(rows), groups, labels) if member is None else member
        if not even(member, labels):  # sums of groups will not do: what stays is weighted class by class
            features, total = rows, Moments.over(check_features(rows))
            return _Set(total, lambda k: Moments.weighted(features, weights(member, labels, k), total.shift), groups)
        rows = Groups.of(rows, groups, member)
    stream, total = rows, rows.total()
    return _Set(total, lambda k: total - stream.group(k), rows.groups)


def _by_moments(x: _Set, y: _Set, level: float) -> Estimate:
    a, b = x.total, y.total
    check_groups(a.n, b.n, x.groups)
    check_columns(a.dimension, b.dimension)
    left_out = np.empty(x.groups)
    for k in range(x.groups):
        p, q = x.leaving_out(k), y.leaving_out(k)
        left_out[k] = frechet_distance(p.mean, p.cov, q.mean, q.cov)
    return jackknife(frechet_distance(a.mean, a.cov, b.mean, b.cov), left_out, level=level)


def expected_bias(eigenvalues: np.ndarray, n: int, m: int) -> float:
    """Return the leading bias of the plain distance between two samples of one Gaussian.

    Arguments:
        eigenvalues: (d,) positive eigenvalues of the covariance.
        n: Size of one sample.
        m: Size of the other.

    Returns:
        The expectation of the plain distance, up to terms of order 1/n^2.
    """
    l = np.asarray(eigenvalues, np.float64)
    pairs = np.outer(l, l) / (l[:, None] + l[None, :])
    return float((1 / n + 1 / m) * (l.sum() + 0.5 * (pairs.sum() + np.trace(pairs))))


LEAST = 5000  # images below which the distance does not lie on a line in 1/n


def frechet_infinity(x: Features, y: Features, sizes: int = 15, smallest: int = LEAST, seed: int = 0) -> Estimate:
    """Extrapolate the plain distance to infinitely many generated images.

    Random subsets of the generated images, of `sizes` evenly spaced sizes from `smallest` to n, give distances that
    fall on a line in 1/n; its intercept is the value.  The reference keeps its size, and so its part of the bias.

    Arguments:
        x: Generated features (n, d), n > smallest.
        y: Reference features (m, d).
        sizes: Number of subset sizes, >= 3.
        smallest: Smallest subset; at least 5000.
        seed: Seed of the subsets.

    Returns:
        The intercept with the interval of the regression; `plain` is the distance at n.  Subsets overlap, so the
        interval is narrower than the truth: quote the interval of `frechet`.

    Raises:
        ValueError: If n or `smallest` is below 5000, or sizes < 3.
    """
    x, y = check_pair(x, y)
    if smallest < LEAST or len(x) <= smallest:
        raise ValueError(
            f"Extrapolating to infinity needs subsets of at least 5000 images and more than that in all, "
            f"got smallest = {smallest} and n = {len(x)}. Make more images, or use the jackknife value."
        )
    if sizes < 3:
        raise ValueError(f"A line and its error need at least 3 sizes, got {sizes}.")
    reference = None if len(y) <= x.shape[1] else Moments.over(y)
    counts = np.linspace(smallest, len(x), sizes).round().astype(int)
    values = np.empty(sizes)
    for i, count in enumerate(counts):
        order = np.argsort(uniform(range(len(x)), seed=seed, purpose="subset", step=i).numpy(), kind="stable")
        part = x[np.sort(order[:count])]
        if reference is None or count <= x.shape[1]:
            values[i] = frechet_plain(part, y)
        else:
            a = Moments.over(part)
            values[i] = frechet_distance(a.mean, a.cov, reference.mean, reference.cov)
    design = np.stack((np.ones(sizes), 1 / counts), axis=1)
    (value, slope), *_ = np.linalg.lstsq(design, values, rcond=None)
    residual = values - design @ np.array([value, slope])
    se = math.sqrt(residual @ residual / (sizes - 2) * np.linalg.inv(design.T @ design)[0, 0])
    reach = student(0.975, sizes - 2) * se
    return Estimate(float(value), (float(value - reach), float(value + reach)), se, float(values[-1]), groups=0)
