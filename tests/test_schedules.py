"""Schedules: monotone, exact at their ends, and related to each other as the theory says."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato import schedules
from sfumato.core.find import entries
from sfumato.core.table import Table

F64 = torch.float64
ALL = entries("schedule")
TABLES = ["linear", "quadratic", "constant", "cosine", "sigmoid"]


def times(count: int) -> torch.Tensor:
    return torch.linspace(0, 1, count, dtype=F64)


@pytest.mark.parametrize("name", ALL)
def test_noise_grows_with_time(name: str) -> None:
    """Every schedule is strictly noisier at later times, and (nearly) clean at 0."""
    schedule = ALL[name]()
    levels = schedule(times(1001))
    assert bool((torch.atan2(levels.sigma, levels.alpha).diff() > 0).all())
    assert float(levels.nsr[0]) <= 0.02
    assert float(levels.abar[-1]) < 1e-3


@pytest.mark.parametrize("name", ["linear", "quadratic", "constant", "cosine", "sigmoid", "vp", "trig"])
def test_variance_is_preserved(name: str) -> None:
    levels = ALL[name]()(times(1001))
    torch.testing.assert_close(levels.alpha**2 + levels.sigma**2, torch.ones(1001, dtype=F64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", TABLES)
def test_discrete_entries_are_tables_of_any_size(name: str) -> None:
    for steps in (50, 1000, 4000):
        table = ALL[name](steps=steps)
        assert isinstance(table, Table) and table.steps == steps
        assert (float(table.levels.alpha[0]), float(table.levels.sigma[0])) == (1.0, 0.0)


@pytest.mark.parametrize("name", ["linear", "quadratic", "constant"])
def test_tables_are_rescaled_with_their_size(name: str) -> None:
    """ln abar_T is the same for every T to first order in 1/T."""
    coarse, fine = (float(ALL[name](steps=t).levels.abar[-1].log()) for t in (1000, 4000))
    assert abs(coarse - fine) < 0.01 * abs(fine)


def test_the_signal_that_linear_leaves() -> None:
    """DDPM, section 4: abar_1000 = 4.04e-5, and L_T is about 1e-5 bits per dimension for images (mean square 1/4)."""
    last = schedules.linear().levels[-1]
    assert abs(float(last.abar) - 4.0358e-5) < 1e-9
    assert 0.7e-5 < float(last.prior_bits(power=0.25)) < 1.5e-5
    assert float(schedules.constant().levels.abar[-1]) == pytest.approx(4.3e-5, rel=0.02)


def test_vp_is_the_limit_of_linear() -> None:
    """abar of the chain tends to the SDE's as T grows, with error of order 1/T."""
    vp = schedules.vp()(times(11)).abar.log()
    errors = []
    for steps in (1000, 2000, 4000):
        levels = schedules.linear(steps)(times(11))
        errors.append(float((levels.abar.log() - vp).abs().max()))
    assert errors[-1] < 0.02
    assert [a / b for a, b in zip(errors, errors[1:])] == pytest.approx([2, 2], abs=0.1)


def test_cosine_follows_its_curve_until_the_clip() -> None:
    """abar_t = f(t) / f(0) for every t whose beta is below 0.999."""
    levels = schedules.cosine(1000).levels
    f = torch.cos((times(1001) + 0.008) / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(levels.abar[:-1], (f / f[0])[:-1], rtol=1e-9, atol=0)
    betas = 1 - levels.abar[1:] / levels.abar[:-1]
    assert float(betas.max()) == pytest.approx(0.999, abs=1e-12)


def test_cosine_clipped_low_is_another_process() -> None:
    """The common re-implementation that clips at 0.02 keeps far more signal at the end."""
    low, usual = (float(schedules.cosine(1000, clip=clip).levels.abar[-1]) for clip in (0.02, 0.999))
    assert low > 100 * usual


def test_sigmoid_is_symmetric() -> None:
    """With start = -end the signal at 1 - t is one minus the signal at t."""
    abar = schedules.sigmoid(1000).levels.abar
    torch.testing.assert_close(abar[:-1], (1 - abar.flip(0))[:-1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "low", "high"), [("ve", 0.02, 100.0), ("edm", 0.002, 80.0)])
def test_noise_ranges(name: str, low: float, high: float) -> None:
    levels = ALL[name]()(times(3))
    assert levels.alpha.tolist() == [1.0, 1.0, 1.0]
    assert levels.sigma[[0, 2]].tolist() == pytest.approx([low, high], rel=1e-12)


def test_ve_is_geometric_and_edm_tends_to_it() -> None:
    """Equal steps of time multiply sigma by a constant; EDM's warp is the same as rho grows."""
    ve = schedules.ve(0.01, 50.0)(times(9)).sigma
    torch.testing.assert_close(ve[1:] / ve[:-1], torch.full((8,), 5000 ** (1 / 8), dtype=F64))
    edm = schedules.edm(0.01, 50.0, rho=1e6)(times(9)).sigma
    torch.testing.assert_close(edm, ve, rtol=1e-4, atol=0)


def test_flow_is_the_straight_line() -> None:
    levels = schedules.flow()(times(5))
    assert levels.alpha.tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert levels.sigma.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_trig_covers_its_log_snr_range() -> None:
    """log_snr = -2 ln tan(angle), with the angle linear in time."""
    levels = schedules.trig(-10.0, 12.0)(times(5))
    assert levels.log_snr[[0, -1]].tolist() == pytest.approx([12.0, -10.0], rel=1e-12)
    angle = torch.atan2(levels.sigma, levels.alpha)
    torch.testing.assert_close(angle.diff(), angle.diff()[0].expand(4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.linear(10), r"beta of a chain lies in \(0, 1\).*T = 10"),
        (lambda: schedules.linear(0), "at least one step"),
        (lambda: schedules.linear(100, 0.02, 1e-4), "beta_min <= beta_max"),
        (lambda: schedules.constant(100, beta=-1.0), "0 < beta_min"),
        (lambda: schedules.ve(1.0, 0.1), "0 < sigma_min < sigma_max"),
        (lambda: schedules.edm(0.0, 80.0), "0 < sigma_min < sigma_max"),
        (lambda: schedules.cosine(0), "at least one step"),
        (lambda: schedules.vp(-0.1, 20.0), "beta_min"),
    ],
)
def test_mistakes(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
