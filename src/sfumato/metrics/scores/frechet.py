"""Frechet distances; the arithmetic is in `metrics.frechet`."""

from __future__ import annotations

from dataclasses import replace

from sfumato.metrics.frechet import LEAST, frechet, frechet_infinity, held
from sfumato.metrics.jackknife import GROUPS
from sfumato.metrics.metric import Metric


def fd() -> Metric:
    """Frechet distance of features, its 1/n bias removed; over Inception it is FID."""
    return Metric(
        "FD",
        2,
        lambda x, y, strata, members: frechet(x, y, strata, members=members),
        "unbiased covariances, 1/n bias removed by a delete-a-group jackknife that keeps the share of each stratum",
        {"groups": GROUPS},
        least=2 * GROUPS,
        groups=True,
        by_covariance=True,
        hold=held,
    )


def sfid() -> Metric:
    """Frechet distance of Inception's spatial features."""
    return replace(fd(), view="spatial")


def fd_infinity() -> Metric:
    """Frechet distance extrapolated to infinitely many generated images."""
    return Metric(
        "FD_infinity",
        1,
        lambda x, y, strata, members: frechet_infinity(x, y),
        "plain values at 15 sizes from 5000 to n on a line in 1/n, n infinite and m not",
        {"sizes": 15, "smallest": LEAST},
        least=LEAST + 1,
        least_real=2,
        by_covariance=True,
    )
