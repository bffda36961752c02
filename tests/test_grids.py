"""Grids: from noisy to clean, N + 1 levels, and each where its definition puts it."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato import grids, schedules
from sfumato.core.level import Level, index_in

F64 = torch.float64
TABLE = schedules.linear(1000).levels
MADE = {
    "full": (1000, lambda: grids.full(TABLE)),
    "respaced": (50, lambda: grids.respaced(TABLE, 50)),
    "respaced-ddim": (50, lambda: grids.respaced(TABLE, spec="ddim50")),
    "respaced-sections": (250, lambda: grids.respaced(TABLE, spec="90,60,60,20,20")),
    "trailing": (50, lambda: grids.trailing(TABLE, 50)),
    "quadratic": (20, lambda: grids.quadratic(TABLE, 20)),
    "iddpm": (18, lambda: grids.iddpm(schedules.cosine().levels, 18)),
    "uniform-table": (1000, lambda: grids.uniform(schedules.linear(), 1000)),
    "uniform-vp": (18, lambda: grids.uniform(schedules.vp(), 18)),
    "uniform-vp-edm": (18, lambda: grids.uniform(schedules.vp(), 18, t_min=1e-3)),
    "uniform-ve": (18, lambda: grids.uniform(schedules.ve(), 18)),
    "uniform-flow": (18, lambda: grids.uniform(schedules.flow(), 18)),
    "karras": (18, lambda: grids.karras()),
    "logsnr": (18, lambda: grids.logsnr()),
    "flow": (18, lambda: grids.flow(18, shift=3.0)),
    "levels": (2, lambda: grids.levels((0.0, 0.5), (1.0, 0.5))),
    "one-step": (1, lambda: grids.karras(1)),
    "one-level": (1, lambda: grids.respaced(TABLE, 1)),
}


def indices(grid: Level) -> list[int]:
    return index_in(TABLE, grid).tolist()


@pytest.mark.parametrize("name", MADE)
def test_a_grid_falls_from_noisy_to_clean(name: str) -> None:
    """N steps are N + 1 levels of falling noise, the last exactly (1, 0)."""
    steps, make = MADE[name]
    grid = make()
    assert grid.shape == (steps + 1,)
    assert bool((torch.atan2(grid.sigma, grid.alpha).diff() < 0).all())
    assert (float(grid.alpha[-1]), float(grid.sigma[-1])) == (1.0, 0.0)


def test_full_is_respaced_by_the_identity() -> None:
    full = grids.full(TABLE)
    for same in (grids.respaced(TABLE, 1000), grids.respaced(TABLE, spec="ddim1000"), grids.trailing(TABLE, 1000)):
        assert torch.equal(same.sigma, full.sigma) and torch.equal(same.alpha, full.alpha)
    uniform = grids.uniform(schedules.linear(), 1000)
    assert torch.equal(uniform.sigma, full.sigma)


def test_respaced_keeps_both_ends_and_ddim_starts_at_the_cleanest() -> None:
    assert indices(grids.respaced(TABLE, 3)) == [1000, 501, 1, 0]  # 1 + round(499.5), half to even
    assert indices(grids.respaced(TABLE, spec="ddim4")) == [751, 501, 251, 1, 0]
    assert indices(grids.respaced(TABLE, 4, "ddim")) == [751, 501, 251, 1, 0]


def test_trailing_starts_at_the_noisiest() -> None:
    assert indices(grids.trailing(TABLE, 4)) == [1000, 750, 500, 250, 0]


def test_quadratic_is_ddims() -> None:
    """int(linspace(0, sqrt(0.8 T), N)^2), as published for CIFAR-10 with T = 1000, counted from 1."""
    assert indices(grids.quadratic(TABLE, 5)) == [801, 451, 201, 51, 1, 0]


def test_karras_is_linear_in_the_root() -> None:
    sigma = grids.karras(10, 0.01, 50.0, rho=5.0).sigma[:-1]
    assert sigma[[0, -1]].tolist() == pytest.approx([50.0, 0.01], rel=1e-12)
    torch.testing.assert_close((sigma**0.2).diff(), (sigma**0.2).diff()[0].expand(9))


def test_logsnr_is_geometric() -> None:
    log_snr = grids.logsnr(10, 0.01, 50.0).log_snr[:-1]
    torch.testing.assert_close(log_snr.diff(), torch.full((9,), 2 * math.log(5000) / 9, dtype=F64))


def test_shift_multiplies_the_noise_to_signal_ratio() -> None:
    plain, shifted = grids.flow(10), grids.flow(10, shift=3.0)
    torch.testing.assert_close(shifted.nsr[1:], 3 * plain.nsr[1:])
    torch.testing.assert_close(shifted.alpha + shifted.sigma, torch.ones(11, dtype=F64))
    assert float(shifted.alpha[0]) == 0


def test_uniform_ends_clean_or_steps_to_clean() -> None:
    """A schedule that is clean at t_min ends there; one that is not is visited at t_min and left in one step."""
    assert grids.uniform(schedules.flow(), 4).sigma.tolist() == [1, 0.75, 0.5, 0.25, 0]
    ve = grids.uniform(schedules.ve(0.01, 100.0), 5).sigma
    assert ve.tolist() == pytest.approx([100, 10, 1, 0.1, 0.01, 0], rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grids.respaced(TABLE), "either steps or spec"),
        (lambda: grids.respaced(TABLE, 10, "ddim10"), "either steps or spec"),
        (lambda: grids.respaced(TABLE, spec="ddim"), "either steps or spec"),
        (lambda: grids.respaced(TABLE, spec="ddim999"), "No integer stride takes 999 of 1000"),
        (lambda: grids.respaced(TABLE, spec="ddimx"), "A spec is 'ddimN'"),
        (lambda: grids.respaced(TABLE, spec="10,x"), "A spec is 'ddimN' or counts"),
        (lambda: grids.respaced(TABLE, spec="600,10"), "section of 500 levels cannot give 600"),
        (lambda: grids.trailing(TABLE, 1001), "at most the table's 1000"),
        (lambda: grids.quadratic(TABLE, 900), "does not give distinct levels.*use fewer steps"),
        (lambda: grids.iddpm(TABLE, 0), "at least 1 step"),
        (lambda: grids.karras(0), "at least 1 step"),
        (lambda: grids.karras(18, 80.0, 0.002), "0 < sigma_min < sigma_max"),
        (lambda: grids.logsnr(18, 0.0, 80.0), "0 < sigma_min < sigma_max"),
        (lambda: grids.levels((1.0,), ()), "as many alphas as sigmas"),
        (lambda: grids.levels((1.0, 1.0), (1.0, 2.0)), "noise of a grid falls"),
        (lambda: grids.flow(10, shift=0.0), "shift must be positive"),
        (lambda: grids.uniform(schedules.vp(), 10, t_min=1.0, t_max=0.5), "t_min < t_max"),
    ],
)
def test_mistakes(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
