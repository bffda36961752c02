"""The stochastic samplers in distribution: mean and covariance of their samples, within five standard errors."""

from __future__ import annotations

import pytest
import torch

from sfumato import grids
from sfumato.core import exact, find
from sfumato.core.level import Level

COUNT = 5_000


def mixture() -> exact.GaussianMixture:
    parts = [((-0.6, 0.2), (0.04, 0.01)), ((0.5, -0.3), (0.09, 0.02))]
    blobs = [
        exact.Gaussian(torch.tensor(mean, dtype=torch.float64), torch.tensor(variances, dtype=torch.float64))
        for mean, variances in parts
    ]
    return exact.GaussianMixture(torch.tensor([0.35, 0.65], dtype=torch.float64), blobs)


def samples(name: str, grid: Level, **options) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)

    def noise(step: int) -> torch.Tensor:
        return torch.randn(COUNT, 2, generator=generator, dtype=torch.float64)

    *_, last = find.find("sampler", name)(mixture(), grid.sigma[0] * noise(-1), grid, noise=noise, **options)
    return last.x


def deviation(x: torch.Tensor) -> float:
    """Return the largest deviation of the mean and second moments, in standard errors."""
    D = mixture()
    worst = []
    centred = x - D.mean
    products = centred.unsqueeze(2) * centred.unsqueeze(1)
    for values, expected in ((x, D.mean), (products.flatten(1), D.covariance.flatten())):
        worst.append(((values.mean(0) - expected) / (values.std(0) / COUNT**0.5)).abs().max())
    return float(max(worst))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dpmpp-sde", {"order": 2}),
        ("dpmpp-sde", {"order": 2, "moments": "exact", "eta": 0.5}),
        ("singlestep", {"order": 2, "eta": 1.0}),
    ],
)
def test_samples_have_the_moments_of_the_data(name, options):
    assert deviation(samples(name, grids.karras(50), **options)) < 5


def test_the_test_sees_a_wrong_noise():
    """Half of the noise that eta = 1 asks for is far outside five standard errors."""
    grid = grids.karras(50)
    generator = torch.Generator().manual_seed(5)

    def noise(step: int) -> torch.Tensor:
        return 0.5 * torch.randn(COUNT, 2, generator=generator, dtype=torch.float64)

    *_, last = find.find("sampler", "dpmpp-sde")(mixture(), grid.sigma[0] * 2 * noise(-1), grid, noise=noise)
    assert deviation(last.x) > 10


def test_higher_order_has_smaller_bias():
    """At 25 steps the second-order SDE is closer to the data than the first-order one, which is ancestral sampling."""
    grid = grids.logsnr(25)
    assert deviation(samples("dpmpp-sde", grid, order=2)) < deviation(samples("dpmpp-sde", grid, order=1)) / 2
