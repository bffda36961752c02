"""A bound read as a rate-distortion curve."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato import grids
from sfumato.core.exact import Gaussian
from sfumato.core.noise import SamplingNoise
from sfumato.likelihood.codec.rate import equal_rate, rate_distortion, rates
from sfumato.likelihood.vlb import Bound, vlb

VARIANCES = torch.tensor([0.09, 0.04, 0.01, 0.002], dtype=torch.float64)
GRID = grids.logsnr(100, sigma_min=0.01, sigma_max=20.0)


@pytest.fixture(scope="module")
def bound() -> Bound:
    truth = Gaussian(torch.zeros(4).double(), VARIANCES)
    n = torch.randn(600, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x0 = ((VARIANCES.sqrt() * n + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    noise = SamplingNoise(range(600), (4,), dtype=torch.float64)
    return Bound.gather(x0, GRID, vlb(truth, x0, GRID, noise=noise, variance="small-own"))


def test_rate_and_decoder_make_the_bound(bound: Bound) -> None:
    curve = rate_distortion(bound)
    torch.testing.assert_close(rates(bound)[:, -1] + bound.decoder, bound.total)
    assert float(curve.rate[-1]) + float(bound.decoder.mean()) == pytest.approx(float(bound.total.mean()), abs=1e-12)
    torch.testing.assert_close(rates(bound)[:, -1], bound.rate)
    torch.testing.assert_close(rates(bound)[:, 0], bound.prior)


def test_a_gaussian_obeys_its_rate_distortion_function(bound: Bound) -> None:
    """The curve of the exact denoiser lies above reverse water-filling and meets it as the distortion falls."""
    curve = rate_distortion(bound)
    mse = (curve.rmse / 127.5) ** 2
    for j in range(10, 100, 10):
        target = float(mse[j]) + 8 * float(curve.rmse[j] * curve.rmse_error[j]) / 127.5**2  # 4 errors of the mse
        low, high = 0.0, float(VARIANCES.max())
        for _ in range(60):  # the water level whose mean distortion is the target
            water = (low + high) / 2
            low, high = (water, high) if float(VARIANCES.clamp(max=water).mean()) < target else (low, water)
        ideal = float((0.5 * torch.log2(VARIANCES / water).clamp(min=0)).mean())
        assert float(curve.rate[j]) > ideal - 4 * float(curve.rate_error[j])
        assert float(curve.rate[j]) < ideal + 0.45
    assert (curve.rate.diff() > 0).all() and (curve.rmse[::10].diff() < 0).all()


def test_errors_are_standard_errors_over_images(bound: Bound) -> None:
    curve = rate_distortion(bound)
    half = Bound(bound.grid, bound.terms[:300], bound.prior[:300], bound.x0_mse[:300])
    ratio = rate_distortion(half).rmse_error / curve.rmse_error
    assert abs(float(ratio.mean()) - math.sqrt(2)) < 0.15
    gap = (rate_distortion(half).rmse - curve.rmse).abs() / curve.rmse_error
    assert float(gap.max()) < 4


def test_steps_of_equal_rate_carry_equal_rates(bound: Bound) -> None:
    grid = equal_rate(bound, 10)
    assert len(grid) == 12 and float(grid.sigma[-1]) == 0
    assert float(grid.sigma[0]) == float(GRID.sigma[0]) and float(grid.sigma[-2]) == float(GRID.sigma[-2])
    rate = rates(bound).mean(0)
    at = [int((GRID.sigma == s).nonzero()) for s in grid.sigma[:-1]]
    share = rate[at].diff()
    assert float(share.max() / share.min()) < 1.6
    with pytest.raises(ValueError, match="chooses 1 to 99 steps"):
        equal_rate(bound, 100)
