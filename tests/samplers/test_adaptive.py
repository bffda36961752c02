"""The adaptive sampler: tolerance, honest calls, independence of the batch and of the grid."""

from __future__ import annotations

import sys

import pytest
import torch

from sfumato import grids
from sfumato.core import exact
from sfumato.core.denoiser import Counted, Prediction
from sfumato.core.level import Level
from sfumato.samplers.adaptive import adaptive

pytest.importorskip("scipy")


def gaussian() -> exact.Gaussian:
    mean, variances = torch.tensor([[0.3, -0.2], [1.0, 0.04]], dtype=torch.float64)
    return exact.Gaussian(mean, variances)


def start(grid: Level, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return grid.sigma[0] * torch.randn(count, 2, generator=generator, dtype=torch.float64)


def run(grid: Level, x: torch.Tensor, **options) -> tuple[list, int]:
    counted = Counted(gaussian())
    return list(adaptive(counted, x, grid, noise=lambda step: torch.zeros_like(x), **options)), counted.nfe


@pytest.mark.parametrize(
    ("gauge", "method"), [("vp", "RK45"), ("flow", "DOP853"), ("vp", "LSODA"), ("flow", "RK23"), ("ve", "RK45")]
)
def test_every_state_lies_on_the_solution(gauge, method):
    grid = grids.karras(6)[:-1]
    x = start(grid)
    states, _ = run(grid, x, gauge=gauge, method=method, rtol=1e-7, atol=1e-7)
    assert len(states) == 5
    for state, level in zip(states, grid[1:]):
        truth = gaussian().ode(x, grid[0], level)
        assert float((state.x - truth).abs().max() / truth.abs().max()) < 1e-4
        assert state.level.nsr == level.nsr


def test_a_tighter_tolerance_costs_calls_and_buys_precision():
    grid = grids.karras(2)[:-1]
    x = start(grid)
    truth = gaussian().ode(x, grid[0], grid[-1])
    rows = [run(grid, x, rtol=tolerance, atol=tolerance) for tolerance in (1e-3, 1e-5, 1e-7)]
    errors = [float((states[-1].x - truth).abs().max()) for states, _ in rows]
    assert errors[1] < errors[0] / 10 and errors[2] < errors[1] / 10 and errors[2] < 1e-6
    assert rows[0][1] < rows[1][1] < rows[2][1]


def test_a_tolerance_out_of_reach_is_refused_in_the_end(monkeypatch):
    monkeypatch.setattr("sfumato.samplers.adaptive._MOST", 200)
    grid = grids.karras(2)
    with pytest.raises(ArithmeticError, match="200 evaluations of one image.*Loosen rtol and atol"):
        run(grid, start(grid), method="RK23", rtol=1e-12, atol=1e-12)


def test_more_levels_cost_no_calls_and_change_nothing():
    few, many = grids.karras(2), grids.karras(20)
    x = start(few)
    (few_states, few_calls), (many_states, many_calls) = run(few, x), run(many, x)
    assert few_calls == many_calls
    assert torch.equal(few_states[-1].x, many_states[-1].x)
    assert len(many_states) == 20 and many_states[-1].level.sigma == 0


def test_an_image_does_not_depend_on_its_company():
    grid = grids.karras(4)
    x = start(grid)
    together, calls = run(grid, x)
    alone = [run(grid, x[b : b + 1]) for b in range(len(x))]
    assert torch.equal(together[-1].x, torch.cat([states[-1].x for states, _ in alone]))
    assert calls == sum(nfe for _, nfe in alone)


def test_from_pure_noise_to_the_clean_level():
    grid = Level.of([0.0, 1.0, 1.0], [1.0, 1e-4, 0.0])
    x = start(grid)
    states, _ = run(grid, x, rtol=1e-9, atol=1e-9)
    assert torch.allclose(states[-1].x, gaussian().ode(x, grid[0], grid[-1]), rtol=0, atol=1e-6)
    assert torch.equal(states[-1].x, states[-1].x0)


def test_one_step_to_clean_is_the_denoiser():
    grid = grids.karras(1)
    x = start(grid)
    states, nfe = run(grid, x)
    assert torch.allclose(states[0].x, gaussian()(x, grid[0]).x0, rtol=1e-13, atol=0) and nfe == len(x)


def test_labels_and_precision():
    label = torch.tensor([3, -1])

    def denoiser(x, level, label=None):
        assert x.dtype == torch.float32 and len(x) == 1
        return Prediction(label.to(x.dtype).reshape(1, 1, 1, 1).expand_as(x))

    x = torch.zeros(2, 1, 2, 2)
    *_, last = adaptive(denoiser, x, grids.karras(3), noise=lambda step: x, label=label)
    assert last.x.dtype == torch.float32 and last.x[:, 0, 0, 0].tolist() == [3.0, -1.0]


def test_bad_input_is_refused(monkeypatch):
    grid = grids.karras(3)
    with pytest.raises(ValueError, match="Did you mean 'RK45'"):
        run(grid, start(grid), method="RK4")
    with pytest.raises(ValueError, match="must be positive; got 0.0"):
        run(grid, start(grid), rtol=0.0)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"pip install 'sfumato\[ode\]'"):
        run(grid, start(grid))
