"""The kernel distance: unbiased, exact in closed cases, with an interval that covers."""

from __future__ import annotations

import numpy as np
import pytest
from tests.kernel import mmd2

from sfumato.metrics.jackknife import group_of
from sfumato.metrics.kid import kid, self_sums


def truth_for_gaussians(mu: np.ndarray, s: float) -> float:
    """Return the population value for N(mu, s^2 I) against N(0, I) by the moments of x.y.

    With u = x.y:  E (u/d + 1)^3 = E u^3/d^3 + 3 E u^2/d^2 + 3 E u/d + 1, where for independent x ~ N(a, p^2 I) and
    y ~ N(b, q^2 I):  E u = a.b,  E u^2 = (a.b)^2 + q^2 |a|^2 + p^2 |b|^2 + d p^2 q^2,
    E u^3 = (a.b)^3 + 3 (a.b)(q^2|a|^2 + p^2|b|^2 + d p^2 q^2) + 6 p^2 q^2 (a.b).
    """
    d = len(mu)

    def mean_kernel(a: np.ndarray, p: float, b: np.ndarray, q: float) -> float:
        dot, var = a @ b, q**2 * (a @ a) + p**2 * (b @ b) + d * p**2 * q**2
        third = dot**3 + 3 * dot * var + 6 * p**2 * q**2 * dot
        return third / d**3 + 3 * (dot**2 + var) / d**2 + 3 * dot / d + 1

    zero = np.zeros(d)
    return mean_kernel(mu, s, mu, s) + mean_kernel(zero, 1, zero, 1) - 2 * mean_kernel(mu, s, zero, 1)


def test_unbiased_and_covering_on_gaussians() -> None:
    rng = np.random.default_rng(0)
    d = 6
    mu = np.full(d, 0.3)
    truth = truth_for_gaussians(mu, 1.2)
    found = [kid(1.2 * rng.normal(size=(100, d)) + mu, rng.normal(size=(80, d))) for _ in range(150)]
    values = np.array([e.value for e in found])
    assert abs(values.mean() - truth) < 3 * values.std(ddof=1) / np.sqrt(150)
    hit = np.mean([e.interval[0] <= truth <= e.interval[1] for e in found])
    assert 0.88 <= hit < 1


def test_equal_distributions_give_negative_values_half_of_the_time() -> None:
    rng = np.random.default_rng(1)
    values = np.array([mmd2(rng.normal(size=(60, 4)), rng.normal(size=(60, 4))) for _ in range(200)])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(200)
    assert (values < 0).mean() > 0.3


def test_sums_do_not_depend_on_the_block() -> None:
    rng = np.random.default_rng(2)
    x, weight = rng.normal(size=(101, 5)), rng.uniform(size=(101, 3))
    kernel = (x @ x.T / 5 + 1) ** 3
    np.fill_diagonal(kernel, 0)
    whole = np.einsum("ic,ij,jc->c", weight, kernel, weight)
    for block in (7, 50, 101):
        np.testing.assert_allclose(self_sums(x, weight, block), whole, rtol=1e-12)


def test_the_interval_is_the_jackknife_of_the_statistic_itself() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(90, 4)), rng.normal(size=(70, 4)) + 0.5
    in_x, in_y = group_of(0, 90), group_of(0, 70)
    left = np.array([mmd2(x[in_x != k], y[in_y != k]) for k in range(20)])
    assert kid(x, y).se == pytest.approx(np.sqrt(19 / 20 * np.sum((left - left.mean()) ** 2)), rel=1e-9)
