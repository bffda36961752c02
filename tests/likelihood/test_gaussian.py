"""The decoder is a distribution over codes, exact in its tails."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.likelihood.gaussian import DECODERS, density, discretised, discretised_tanh, normal_kl

CODES = torch.arange(256, dtype=torch.float64) / 127.5 - 1


@pytest.mark.parametrize("name", ["erf", "tanh"])
@pytest.mark.parametrize("mean", [-1.3, -1.0, 0.013, 0.997, 1.2])
@pytest.mark.parametrize("log_var", [-13.0, -8.0, -3.0, 2.0])
def test_the_256_masses_sum_to_one(name: str, mean: float, log_var: float) -> None:
    log_p = DECODERS[name](CODES, torch.full_like(CODES, mean), torch.tensor(log_var, dtype=torch.float64))
    # the tanh form clamps each mass at 1e-12 from below
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-12 if name == "erf" else 3e-10)


def test_tails_are_exact_where_the_mass_underflows() -> None:
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.dps = 50
    mean, s = 0.9, 0.004
    for code in (0, 1, 60, 128, 236, 250, 254, 255):
        x = float(CODES[code])
        bins = [(mpmath.mpf(x) + sign * mpmath.mpf(1) / 255 - mpmath.mpf(mean)) / mpmath.mpf(s) for sign in (-1, 1)]
        low = mpmath.mpf("-inf") if code == 0 else bins[0]
        high = mpmath.mpf("inf") if code == 255 else bins[1]
        a, b = (-high, -low) if low + high > 0 else (low, high)
        truth = mpmath.log((mpmath.erfc(-b / mpmath.sqrt(2)) - mpmath.erfc(-a / mpmath.sqrt(2))) / 2)
        args = [torch.tensor(v, dtype=torch.float64) for v in (x, mean, 2 * math.log(s))]
        assert float(discretised(*args)) == pytest.approx(float(truth), rel=1e-10)


def test_the_tanh_form_is_close_to_the_exact_one_where_mass_is() -> None:
    mean, log_var = torch.tensor(0.1, dtype=torch.float64), torch.tensor(-6.0, dtype=torch.float64)
    p = discretised(CODES, mean.expand(256), log_var).exp()
    gap = float((p - discretised_tanh(CODES, mean.expand(256), log_var).exp()).abs().sum())
    assert 1e-6 < gap < 2e-3  # an approximation, and one that shows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_point_uphill_and_are_finite(dtype: torch.dtype) -> None:
    mean = torch.linspace(-1.2, 1.2, 31, dtype=dtype).repeat_interleave(8).requires_grad_()
    log_var = torch.linspace(-12, 2, 8, dtype=dtype).repeat(31).requires_grad_()
    x0 = CODES[[0, 3, 127, 128, 200, 254, 255]].to(dtype).unsqueeze(1)
    discretised(x0, mean, log_var).sum().backward()
    assert mean.grad is not None and log_var.grad is not None
    assert mean.grad.isfinite().all() and log_var.grad.isfinite().all()
    if dtype == torch.float64:
        inputs = (x0[2], torch.tensor([0.05, -0.2], dtype=dtype, requires_grad=True), torch.tensor(-5.0, dtype=dtype))
        assert torch.autograd.gradcheck(discretised, inputs)


def test_density_and_divergence_agree_with_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    m1, m2, v1, v2, x = torch.randn(5, 40, generator=generator, dtype=torch.float64)
    p, q = (torch.distributions.Normal(m, (v / 2).exp()) for m, v in ((m2, v2), (m1, v1)))
    torch.testing.assert_close(normal_kl(m1 - m2, v1, v2), torch.distributions.kl_divergence(q, p))
    torch.testing.assert_close(density(x, m2, v2), p.log_prob(x))
