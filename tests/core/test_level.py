"""Levels, tables and gauges."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato import schedules
from sfumato.core import gauge as gauges
from sfumato.core.level import Level, index_in, like
from sfumato.core.table import Table

F64 = torch.float64


def test_levels_are_float64_on_the_cpu() -> None:
    level = Level(torch.ones(2), torch.tensor([0.5, 2.0]))
    assert level.alpha.dtype == level.sigma.dtype == F64
    assert level.nsr.tolist() == [0.5, 2.0]


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="one shape.*Level.of"):
        Level(torch.ones(2), torch.ones(3))


def test_ends_of_the_scale() -> None:
    """The clean level and pure noise are levels like any other."""
    clean, pure = Level.clean(), Level.of(0.0, 1.0)
    assert (float(clean.nsr), float(clean.log_snr), float(clean.abar)) == (0.0, math.inf, 1.0)
    assert (float(pure.nsr), float(pure.log_snr), float(pure.abar)) == (math.inf, -math.inf, 0.0)


def test_noisy_broadcasts_levels_over_images() -> None:
    x0, n = torch.full((2, 1, 2, 2), 3.0), torch.full((2, 1, 2, 2), 5.0)
    x = Level.of([1.0, 0.5], [0.0, 2.0]).noisy(x0, n)
    assert x.dtype == torch.float32
    assert torch.equal(x[0], x0[0])
    assert torch.equal(x[1], torch.full((1, 2, 2), 11.5))


def test_like_takes_the_images_dtype_and_rank() -> None:
    x = torch.zeros(3, 1, 2, 2, dtype=torch.float32)
    assert like(torch.ones(3, dtype=F64), x).shape == (3, 1, 1, 1)
    assert like(torch.ones((), dtype=F64), x).dtype == torch.float32


def test_prior_bits_is_the_gaussian_kl() -> None:
    """KL(N(sqrt(abar) x0, (1 - abar) I) || N(0, I)), against torch's own, averaged over x0 = +-1; any scale."""
    level = Level.of(0.6, 0.8)
    q = torch.distributions.Normal(torch.tensor(0.6, dtype=F64), torch.tensor(0.8, dtype=F64))
    p = torch.distributions.Normal(torch.zeros((), dtype=F64), torch.ones((), dtype=F64))
    want = torch.distributions.kl_divergence(q, p) / math.log(2)
    torch.testing.assert_close(level.prior_bits(), want, rtol=1e-12, atol=0)
    torch.testing.assert_close(level.scaled(7.0).prior_bits(), want, rtol=1e-12, atol=0)


def test_index_in_finds_every_entry_at_any_scale() -> None:
    table = schedules.cosine(4000).levels
    index = torch.arange(4001)
    assert torch.equal(index_in(table, table), index)
    assert torch.equal(index_in(table, table.scaled(3.7)), index)
    assert int(index_in(table, table[17])) == 17


def test_index_in_refuses_a_level_between_entries() -> None:
    table = schedules.linear(100).levels
    between = Level.of(table.alpha[50:52].mean(), table.sigma[50:52].mean())
    with pytest.raises(ValueError, match=r"knows 100 discrete levels.*nearest is.*Use a grid"):
        index_in(table, between)


def test_table_from_betas_keeps_small_and_large_noise() -> None:
    """1 - abar has full relative precision at both ends: compare with exact products of fractions."""
    betas = torch.tensor([1e-12, 1e-9, 0.5, 0.999], dtype=F64)
    levels = Table.from_betas(betas).levels
    torch.testing.assert_close(levels.sigma[1] ** 2, betas[0], rtol=1e-14, atol=0)
    torch.testing.assert_close(levels.sigma[2] ** 2, betas[0] + betas[1] - betas[0] * betas[1], rtol=1e-14, atol=0)
    torch.testing.assert_close(levels.alpha**2 + levels.sigma**2, torch.ones(5, dtype=F64), rtol=1e-14, atol=0)


def test_a_table_is_a_schedule_exact_at_its_entries() -> None:
    table = schedules.linear(50)
    at = table(torch.arange(51, dtype=F64) / 50)
    assert torch.equal(at.sigma, table.levels.sigma)
    assert table.steps == 50


@pytest.mark.parametrize("betas", [[0.5, 1.0], [0.0, 0.5], [-0.1]])
def test_betas_outside_the_unit_interval_are_refused(betas: list[float]) -> None:
    with pytest.raises(ValueError, match="beta of a chain lies in"):
        Table.from_betas(torch.tensor(betas))


def test_a_table_must_start_clean_and_grow() -> None:
    with pytest.raises(ValueError, match="starts with the clean level"):
        Table(Level.of([0.9, 0.5], [0.1, 0.5]))
    with pytest.raises(ValueError, match="entry 2 is not"):
        Table(Level.of([1.0, 1.0, 1.0], [0.0, 0.5, 0.4]))


EXTRA = gauges.along("vp-time", schedules.vp(), lambda nsr: _vp_time(nsr))


def _vp_time(nsr: torch.Tensor) -> torch.Tensor:
    area = torch.log1p(nsr**2)
    return 2 * area / (0.1 + (0.01 + 2 * 19.9 * area).sqrt())


@pytest.mark.parametrize("gauge", [*gauges.GAUGES.values(), EXTRA], ids=lambda g: g.name)
def test_where_inverts_at(gauge: gauges.Gauge) -> None:
    """A level k (A(u), S(u)) is found at (k, u), for any scale k."""
    u = torch.linspace(0.05, 0.9, 9, dtype=F64)
    k, found = gauge.where(gauge.at(u).scaled(2.5))
    torch.testing.assert_close(found, u, rtol=1e-12, atol=0)
    torch.testing.assert_close(k, torch.full_like(u, 2.5), rtol=1e-12, atol=0)


@pytest.mark.parametrize("gauge", [*gauges.GAUGES.values(), EXTRA], ids=lambda g: g.name)
def test_slope_is_the_derivative_of_the_path(gauge: gauges.Gauge) -> None:
    u, h = torch.linspace(0.1, 0.9, 9, dtype=F64), 1e-6
    ahead, behind = gauge.at(u + h), gauge.at(u - h)
    da, ds = gauge.slope(u)
    torch.testing.assert_close(da, (ahead.alpha - behind.alpha) / (2 * h), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(ds, (ahead.sigma - behind.sigma) / (2 * h), rtol=1e-6, atol=1e-8)


def test_slopes_exist_without_gradients() -> None:
    """A sampler under no_grad or inference_mode still knows its gauge."""
    want = EXTRA.slope(torch.tensor(0.5, dtype=F64))
    for off in (torch.no_grad(), torch.inference_mode()):
        with off:
            got = EXTRA.slope(torch.tensor(0.5, dtype=F64))
        assert [float(g) for g in got] == [float(w) for w in want]


def test_the_ve_gauge_refuses_pure_noise() -> None:
    with pytest.raises(ValueError, match="'ve' gauge needs alpha > 0.*'flow' or 'vp'"):
        gauges.ve.where(Level.of(0.0, 1.0))


def test_gauges_are_found_by_name() -> None:
    assert gauges.named("vp") is gauges.vp
    assert gauges.named(EXTRA) is EXTRA
    with pytest.raises(ValueError, match="Unknown gauge 'vpp'. Available: ve, flow, vp"):
        gauges.named("vpp")
