"""Laws of the step kernel q(x_s | x_t, x0): it is a conditional of one Gaussian process, whatever the steps."""

from __future__ import annotations

import pytest
import torch

from sfumato import grids, schedules
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level

F64 = torch.float64
PROCESSES = {
    "vp": schedules.vp(),
    "ve": schedules.ve(0.01, 50.0),
    "flow": schedules.flow(),
    "cosine": schedules.cosine(500),
    "sub-vp": lambda t: Level((-t).exp(), 2 * t),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_chapman_kolmogorov(name: str) -> None:
    """Stepping t -> s -> r is stepping t -> r: x_s integrated out of q(x_r|x_s,x0) q(x_s|x_t,x0) is q(x_r|x_t,x0)."""
    at = PROCESSES[name]
    r, s, t = (at(torch.linspace(lo, lo + 0.25, 20, dtype=F64)) for lo in (0.05, 0.35, 0.65))
    rs, st, rt = Kernel.between(r, s), Kernel.between(s, t), Kernel.between(r, t)
    close = {"rtol": 1e-10, "atol": 0}
    torch.testing.assert_close(rs.xt * st.xt, rt.xt, **close)
    torch.testing.assert_close(rs.x0 + rs.xt * st.x0, rt.x0, **close)
    variance = rs.log_var_small.exp() + rs.xt**2 * st.log_var_small.exp()
    torch.testing.assert_close(variance, rt.log_var_small.exp(), **close)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_kernel_maps_the_marginal_at_t_onto_the_marginal_at_s(name: str) -> None:
    """k.x0 + k.xt alpha_t = alpha_s and k.xt^2 sigma_t^2 + var = sigma_s^2, at every level including both ends."""
    levels = PROCESSES[name](torch.linspace(0, 1, 30, dtype=F64))
    s, t = levels[:-1], levels[1:]
    k = Kernel.between(s, t)
    torch.testing.assert_close(k.x0 + k.xt * t.alpha, s.alpha, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(k.xt**2 * t.sigma**2 + k.log_var_small.exp(), s.sigma**2, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_large_variance_is_the_forward_one(name: str) -> None:
    """q(x_t | x_s) has mean (alpha_t / alpha_s) x_s, so var_large = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2."""
    levels = PROCESSES[name](torch.linspace(0.1, 0.9, 30, dtype=F64))
    s, t = levels[:-1], levels[1:]
    want = t.sigma**2 - (t.alpha / s.alpha) ** 2 * s.sigma**2
    k = Kernel.between(s, t)
    torch.testing.assert_close(k.log_var_large.exp(), want, rtol=1e-10, atol=0)
    assert bool((k.log_var_large > k.log_var_small).all())


def test_scaling_x_scales_the_kernel() -> None:
    """With x_t in units a and x_s in units b, coefficients and variances follow their units."""
    s, t = Level.of(0.9, 0.3), Level.of(0.5, 0.8)
    k, scaled = Kernel.between(s, t), Kernel.between(s.scaled(2.0), t.scaled(5.0))
    torch.testing.assert_close(scaled.x0, 2 * k.x0)
    torch.testing.assert_close(scaled.xt, k.xt * 2 / 5)
    torch.testing.assert_close(scaled.log_var_small.exp(), 4 * k.log_var_small.exp())


def test_nothing_cancels_where_levels_meet() -> None:
    """For neighbours 1e-9 apart 1 - r keeps its digits: compare with the derivative of log-SNR."""
    t = torch.tensor(0.5, dtype=F64)
    h = 2.0**-30
    k = Kernel.between(schedules.vp()(t), schedules.vp()(t + h))
    slope = 0.1 + 19.9 * 0.5  # beta(t), so var_large = beta h + O(h^2)
    assert abs(float(k.log_var_large.exp()) / (slope * h) - 1) < 1e-6


def test_learned_variance_interpolates_logarithms() -> None:
    """ln var = v ln large + (1 - v) ln small, per pixel, for one level or one per image."""
    levels = schedules.linear(50).levels
    fraction = torch.tensor([0.0, 0.25, 1.0]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    for k in (Kernel.between(levels[9], levels[10]), Kernel.between(levels[[4, 9, 19]], levels[[5, 10, 20]])):
        got = k.log_var(fraction)[:, 0, 0, 0].double()
        want = torch.tensor([0.0, 0.25, 1.0]) * (k.log_var_large - k.log_var_small) + k.log_var_small
        torch.testing.assert_close(got, want.double(), rtol=1e-6, atol=0)


def test_a_chain_is_its_steps_with_a_usable_last_logarithm() -> None:
    grid = grids.full(schedules.linear(50).levels)
    chain, exact = Kernel.chain(grid), Kernel.between(grid[1:], grid[:-1])
    assert torch.equal(chain.x0, exact.x0) and torch.equal(chain.log_var_large, exact.log_var_large)
    assert torch.equal(chain.log_var_small[:-1], exact.log_var_small[:-1])
    assert float(exact.log_var_small[-1]) == -float("inf")
    assert float(chain.log_var_small[-1]) == float(exact.log_var_small[-2])
    single = Kernel.chain(grids.karras(1))
    assert torch.equal(single.log_var_small, single.log_var_large)


def test_a_kernel_only_steps_towards_the_clean_end() -> None:
    levels = schedules.linear(50).levels
    for s, t in ((levels[10], levels[9]), (levels[10], levels[10]), (Level.of(0.0, 1.0), Level.of(0.0, 2.0))):
        with pytest.raises(ValueError, match="s cleaner than t"):
            Kernel.between(s, t)
