"""Predictor-corrector: without corrections it is ancestral sampling, and a correction leaves its distribution alone."""

from __future__ import annotations

import torch

from sfumato import grids
from sfumato.core.exact import Gaussian
from sfumato.core.level import Level
from sfumato.core.noise import SamplingNoise, normal
from sfumato.samplers.ancestral import ancestral
from sfumato.samplers.predictor_corrector import _correct, predictor_corrector

F64 = torch.float64
DATA = Gaussian(torch.zeros(64, dtype=F64), torch.full((64,), 0.25, dtype=F64))


def test_without_corrections_it_is_ancestral_sampling() -> None:
    noise = SamplingNoise([0, 1], (64,), dtype=F64)
    grid = grids.karras(9)
    x = noise.start() * float(grid.sigma[0])
    *_, a = predictor_corrector(DATA, x, grid, noise=noise, corrections=0)
    *_, b = ancestral(DATA, x, grid, noise=noise, variance="large")
    assert torch.equal(a.x, b.x)


def test_small_corrections_bring_any_start_to_the_level_and_keep_it_there() -> None:
    """Langevin dynamics keeps q(x_t) up to the step's bias, of order snr^2, and 4 / d, since steps look at x."""
    data = Gaussian(torch.zeros(512, dtype=F64), torch.full((512,), 0.25, dtype=F64))
    level = Level.of(0.8, 0.6)
    variance = float(level.alpha**2 * 0.25 + level.sigma**2)
    x = 2 * normal(range(50), (512,), purpose="start", dtype=F64)  # far too wide
    for step in range(600):
        z = normal(range(50), (512,), purpose="z", step=step, dtype=F64)
        x = _correct(x, data(x, level).x0, level, z, 0.1)
    assert abs(float(x.var()) / variance - 1) < 0.04


def test_corrections_repair_a_coarse_walk() -> None:
    """On few steps the large variance is too wide; corrections pull the result back towards the data."""
    errors = []
    for corrections in (0, 1, 4):
        noise = SamplingNoise(range(500), (64,), dtype=F64)
        grid = grids.karras(12)
        x = noise.start() * float(grid.sigma[0])
        *_, last = predictor_corrector(DATA, x, grid, noise=noise, corrections=corrections, snr=0.16)
        errors.append(abs(float(last.x.var()) / 0.25 - 1))
    assert errors[2] < errors[1] < errors[0]
