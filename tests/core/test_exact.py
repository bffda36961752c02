"""The exact denoisers are exact: Tweedie's formula, consistency with each other, and the closed-form trajectory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sfumato.core import gauge as gauges
from sfumato.core.exact import Empirical, Gaussian, GaussianMixture
from sfumato.core.level import Level
from sfumato.core.noise import normal, uniform

F64 = torch.float64
LEVELS = [Level.of(1.0, 2.0), Level.of(0.6, 0.8), Level.of(0.3, 0.1)]


def gaussian() -> Gaussian:
    a = normal([1], (3, 3), purpose="covariance", dtype=F64)[0]
    return Gaussian.from_covariance(torch.tensor([0.5, -1.0, 0.2], dtype=F64), a @ a.T / 3)


def mixture() -> GaussianMixture:
    other = Gaussian(torch.tensor([-1.0, 0.3, 0.8], dtype=F64), torch.tensor([0.2, 0.05, 0.4], dtype=F64))
    return GaussianMixture(torch.tensor([0.3, 0.7], dtype=F64), [gaussian(), other])


def points(count: int = 5) -> Tensor:
    return normal(range(count), (3,), purpose="points", dtype=F64)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: f"nsr{float(level.nsr):.2g}")
@pytest.mark.parametrize("make", [gaussian, mixture])
def test_tweedie(make, level: Level) -> None:
    """E[x0 | x] = (x + sigma^2 grad ln p(x)) / alpha."""
    exact, x = make(), points().requires_grad_()
    (score,) = torch.autograd.grad(exact.log_density(x, level).sum(), x)
    torch.testing.assert_close(exact(x, level).x0, (x + level.sigma**2 * score) / level.alpha, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: f"nsr{float(level.nsr):.2g}")
def test_density_is_that_of_the_noisy_gaussian(level: Level) -> None:
    g, x = gaussian(), points()
    covariance = level.alpha**2 * (g.basis * g.variances) @ g.basis.T + level.sigma**2 * torch.eye(3, dtype=F64)
    want = torch.distributions.MultivariateNormal(level.alpha * g.mean, covariance).log_prob(x)
    torch.testing.assert_close(g.log_density(x, level), want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("gauge", gauges.GAUGES.values(), ids=lambda g: g.name)
def test_trajectory_solves_the_ode(gauge: gauges.Gauge) -> None:
    """d/du of the closed form equals the gauge's velocity field."""
    g, u, h = gaussian(), torch.tensor(0.6, dtype=F64), 1e-5
    x, start = points(), gauge.at(torch.tensor(0.8, dtype=F64))
    y = g.ode(x, start, gauge.at(u))
    difference = (g.ode(x, start, gauge.at(u + h)) - g.ode(x, start, gauge.at(u - h))) / (2 * h)
    torch.testing.assert_close(gauge.velocity(y, u, g(y, gauge.at(u)).x0), difference, rtol=1e-8, atol=1e-8)


def test_trajectory_transports_the_density() -> None:
    """The probability flow maps N at one level onto N at another: covariance of the image of a basis."""
    g, t, s = gaussian(), Level.of(0.5, 1.5), Level.of(1.0, 0.2)
    axes = torch.cat((torch.zeros(1, 3, dtype=F64), torch.eye(3, dtype=F64)))
    moved = g.ode(axes, t, s)
    linear = (moved[1:] - moved[0]).T

    def covariance(level: Level) -> Tensor:
        return level.alpha**2 * (g.basis * g.variances) @ g.basis.T + level.sigma**2 * torch.eye(3, dtype=F64)

    torch.testing.assert_close(linear @ covariance(t) @ linear.T, covariance(s), rtol=1e-10, atol=1e-10)


def test_a_mixture_of_equal_components_is_its_component() -> None:
    g, x = gaussian(), points()
    same = GaussianMixture(torch.tensor([0.4, 0.6], dtype=F64), [g, g])
    torch.testing.assert_close(same(x, LEVELS[1]).x0, g(x, LEVELS[1]).x0)


def test_a_label_selects_a_component_class_0_included() -> None:
    m, x, level = mixture(), points(3), LEVELS[1]
    got = m(x, level, torch.tensor([0, 1, -1])).x0
    torch.testing.assert_close(got[0], m.components[0](x, level).x0[0])
    torch.testing.assert_close(got[1], m.components[1](x, level).x0[1])
    torch.testing.assert_close(got[2], m(x, level).x0[2])
    with pytest.raises(ValueError, match=r"Labels lie in \[0, 2\)"):
        m(x, level, torch.tensor([0, 1, 2]))


def test_moments_of_a_mixture() -> None:
    """Against a large stratified sample: the mean and covariance properties."""
    m, count = mixture(), 200_000
    first = torch.arange(count) < round(0.3 * count)
    z = normal(range(count), (3,), purpose="mixture", dtype=F64)
    draws = torch.where(
        first.unsqueeze(1),
        m.components[0].mean + (z * m.components[0].variances.sqrt()) @ m.components[0].basis.T,
        m.components[1].mean + z * m.components[1].variances.sqrt(),
    )
    torch.testing.assert_close(draws.mean(0), m.mean, rtol=0, atol=0.01)
    torch.testing.assert_close(draws.T.cov(), m.covariance, rtol=0, atol=0.015)


def test_empirical_is_a_mixture_of_points() -> None:
    """The posterior mean over a data set is a mixture of Gaussians of zero variance."""
    data, x = uniform(range(6), (3,), purpose="data"), points()
    peaks = GaussianMixture(torch.full((6,), 1 / 6, dtype=F64), [Gaussian(d, torch.zeros(3, dtype=F64)) for d in data])
    for level in LEVELS:
        torch.testing.assert_close(Empirical(data)(x, level).x0, peaks(x, level).x0, rtol=1e-10, atol=1e-12)


def test_empirical_restricts_to_a_class() -> None:
    data, labels = uniform(range(6), (3,), purpose="data"), torch.tensor([0, 0, 0, 1, 1, 1])
    x, level = points(3), LEVELS[0]
    got = Empirical(data, labels)(x, level, torch.tensor([0, 1, -1])).x0
    for row, part in enumerate((data[:3], data[3:], data)):
        torch.testing.assert_close(got[row], Empirical(part)(x, level).x0[row])
    with pytest.raises(ValueError, match="has no labels"):
        Empirical(data)(x, level, labels[:3])
    with pytest.raises(ValueError, match=r"Labels lie in \[0, 2\)"):
        Empirical(data, labels)(x, level, torch.tensor([0, 1, 5]))


def test_images_are_points() -> None:
    data = uniform(range(4), (1, 2, 2), purpose="images")
    x = normal(range(2), (1, 2, 2), purpose="x", dtype=F64)
    assert Empirical(data)(x, LEVELS[0]).x0.shape == (2, 1, 2, 2)
    one = Gaussian(torch.zeros(4, dtype=F64), torch.ones(4, dtype=F64))
    torch.testing.assert_close(one(x, LEVELS[1]).x0, 0.6 * x)
