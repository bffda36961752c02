"""The probability-flow likelihood against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sfumato.core import gauge
from sfumato.core.exact import Gaussian, GaussianMixture
from sfumato.core.gauge import Gauge
from sfumato.core.level import Level
from sfumato.likelihood.ode import dequantise, likelihood, probes
from sfumato.likelihood.vlb import BITS


def rotated(d: int, seed: int) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return Gaussian.from_covariance(torch.randn(d, generator=generator, dtype=torch.float64) / 3, a @ a.T / d)


def points(count: int, d: int) -> Tensor:
    return torch.randn(count, d, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


NEAR, FAR = Level.of(1.0, 0.01), Level.of(0.01, 1.0)


@pytest.mark.parametrize("g", [gauge.ve, gauge.flow, gauge.vp], ids=lambda g: g.name)
def test_a_gaussian_has_the_closed_form_in_every_gauge(g: Gauge) -> None:
    truth, x = rotated(4, 0), points(6, 4)
    found = likelihood(truth, x, NEAR, FAR, gauge=g, probe=None, rtol=1e-8, atol=1e-8)
    (k, u_near), (_, u_far) = g.where(NEAR), g.where(FAR)
    near, far = g.at(u_near), g.at(u_far)
    latent = truth.ode(x / k, near, far)
    var_near, var_far = (v.alpha**2 * truth.variances + v.sigma**2 for v in (near, far))
    log_det = 0.5 * (var_far / var_near).log().sum()
    prior = far.alpha**2 + far.sigma**2
    log_p = -0.5 * (latent**2 / prior + (2 * math.pi * prior).log()).sum(1) + log_det - 4 * k.log()
    torch.testing.assert_close(found.latent, latent, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.log_det, log_det.expand(6), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.bits, -log_p * BITS / 4, rtol=1e-6, atol=1e-6)


def test_a_mixture_has_its_true_density() -> None:
    truth = GaussianMixture(torch.tensor([0.3, 0.7]).double(), [rotated(2, 1), rotated(2, 2)])
    x = points(12, 2)
    near, far = Level.of(1.0, 0.05), Level.of(3e-4, 1.0)
    found = likelihood(truth, x, near, far, gauge=gauge.vp, probe=None, rtol=1e-8, atol=1e-8)
    # what is left is the difference of p_far from the prior, of the order of alpha_far
    torch.testing.assert_close(found.bits, -truth.log_density(x, near) * BITS / 2, atol=3e-3, rtol=0)


def test_hutchinson_is_unbiased_and_exact_for_a_diagonal_jacobian() -> None:
    truth, x = rotated(4, 0), points(1, 4).expand(400, 4)
    options = {"gauge": gauge.flow, "rtol": 1e-6, "atol": 1e-6}
    exact = likelihood(truth, x[:1], NEAR, FAR, probe=None, **options).bits
    noisy = likelihood(truth, x, NEAR, FAR, probe=probes(range(400), x), **options).bits
    error = float(noisy.std() / 20)
    assert error > 1e-3  # probes do differ
    assert abs(float(noisy.mean() - exact)) < 4 * error
    plain = Gaussian(truth.mean, truth.variances)
    one = likelihood(plain, x[:3], NEAR, FAR, probe=probes(range(3), x[:3]), **options).bits
    torch.testing.assert_close(one, likelihood(plain, x[:3], NEAR, FAR, probe=None, **options).bits)


def test_an_image_keeps_its_value_in_any_batch() -> None:
    truth = GaussianMixture(torch.tensor([0.5, 0.5]).double(), [rotated(3, 1), rotated(3, 2)])
    x = torch.cat((points(3, 3), 30 * points(1, 3)))  # the last one is far out and needs other steps
    whole = likelihood(truth, x, NEAR, FAR, gauge=gauge.vp, probe=probes(range(4), x))
    assert len(set(whole.nfe.tolist())) > 1
    for i in range(4):
        one = likelihood(truth, x[i : i + 1], NEAR, FAR, gauge=gauge.vp, probe=probes([i], x[i : i + 1]))
        assert one.nfe[0] == whole.nfe[i]
        torch.testing.assert_close(one.bits[0], whole.bits[i], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("bins", "width"), [("centred", 1 / 127.5), ("unit", 1 / 128)])
def test_dequantised_bits_measure_the_mass_of_a_code(bins: str, width: float) -> None:
    """For a density that is flat over a bin, -log2 p + offset is -log2 of the mass of the bin."""
    x0 = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).reshape(256, 1)
    x, offset = dequantise(x0, range(256), bins)
    assert offset == pytest.approx(-math.log2(width))
    spread = (x - x0) / width
    assert float(spread.max() - spread.min()) < 2.0
    if bins == "centred":
        assert float(spread.abs().max()) <= 0.5
    else:
        assert float(x.min()) > -1 and float(x.max()) < 1
        assert ((x + 1) / width).floor().flatten().tolist() == list(range(256))
    again, _ = dequantise(x0[40:50], range(40, 50), bins)
    assert torch.equal(again, x[40:50])
    wide = Gaussian(torch.zeros(1).double(), torch.ones(1).double())
    bits = likelihood(wide, x[100:104], Level.of(1.0, 1e-3), FAR, gauge=gauge.vp, probe=None, offset=offset).bits
    mass = -torch.log2(width * torch.exp(-0.5 * x0[100:104, 0] ** 2) / math.sqrt(2 * math.pi))
    torch.testing.assert_close(bits, mass, atol=2e-3, rtol=0)


def test_probes_are_balanced_signs() -> None:
    x = torch.zeros(64, 3, 8, 8)
    e = probes(range(64), x)
    assert set(e.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(e.mean())) < 4 / math.sqrt(e.numel())
    assert torch.equal(probes([7], x[:1])[0], e[7])


def test_progress_is_visible_and_bad_levels_are_refused() -> None:
    truth, x = rotated(3, 0), points(2, 3)
    seen: list[float] = []
    likelihood(truth, x, NEAR, FAR, gauge=gauge.vp, probe=None, watch=lambda state: seen.append(float(state.u.min())))
    assert seen == sorted(seen) and len(seen) >= 2
    for near, far in ((Level.clean(), FAR), (FAR, NEAR)):
        with pytest.raises(ValueError, match="smallest noise"):
            likelihood(truth, x, near, far, gauge=gauge.vp, probe=None)
    with pytest.raises(ValueError, match="Did you mean 'centred'"):
        dequantise(x, range(2), "centered")
