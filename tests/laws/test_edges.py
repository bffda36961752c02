"""Edges of the mathematics: one step, alpha = 0, a table under churn, an image of no class."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sfumato import grids
from sfumato.core.denoiser import Prediction
from sfumato.core.level import Level, index_in, nearest_in
from sfumato.guidance.classifier import classifier
from sfumato.samplers.euler import euler
from sfumato.samplers.heun import heun
from sfumato.schedules import edm, flow, linear
from sfumato.sources import Diffusion
from sfumato.training.hooks.live import thinned

TABLE = linear(100).levels
ONE_STEP = {
    "respaced": lambda steps: grids.respaced(TABLE, steps),
    "respaced, spec": lambda steps: grids.respaced(TABLE, spec=str(steps)),
    "trailing": lambda steps: grids.trailing(TABLE, steps),
    "quadratic": lambda steps: grids.quadratic(TABLE, steps),
    "iddpm": lambda steps: grids.iddpm(TABLE, steps, sigma_max=1e9),
    "uniform": lambda steps: grids.uniform(edm(), steps),
    "karras": grids.karras,
    "logsnr": grids.logsnr,
    "flow": grids.flow,
}


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("name", ONE_STEP)
def test_a_grid_of_few_steps_starts_at_the_noisiest_level(name: str, steps: int) -> None:
    few, more = ONE_STEP[name](steps), ONE_STEP[name](5)
    assert len(few) == steps + 1
    torch.testing.assert_close(few.nsr[0], more.nsr[0], rtol=1e-9, atol=0)


def test_ddim1_is_refused_and_sections_keep_the_published_places() -> None:
    with pytest.raises(ValueError, match="cleanest level alone"):
        grids.respaced(TABLE, spec="ddim1")
    two = grids.respaced(TABLE, spec="1,1")  # the cleanest of the first half, the noisiest of the second
    assert index_in(TABLE, two).tolist() == [100, 1, 0]


def test_a_classifier_adds_nothing_at_pure_noise_and_is_finite_on_the_whole_walk() -> None:
    def model(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        return Prediction(0.5 * x)

    guided = classifier(model, lambda x, level: torch.stack((x.sum((1, 2, 3)), -x.sum((1, 2, 3))), 1), 2.0)
    x, label = torch.randn(2, 1, 2, 2), torch.tensor([0, 1])
    start = flow()(torch.tensor(1.0, dtype=torch.float64))
    assert torch.equal(guided(x, start, label).x0, 0.5 * x)
    both = Level(torch.tensor([0.0, 0.5]), torch.tensor([1.0, 0.5]))
    found = guided(x, both, label).x0
    assert torch.equal(found[0], 0.5 * x[0]) and bool((found[1] != 0.5 * x[1]).any())
    states = list(euler(guided, x, grids.flow(4), label=label))
    assert all(bool(state.x.isfinite().all()) for state in states)


@pytest.mark.parametrize("sampler", [heun, euler])
def test_churn_asks_a_table_at_its_own_levels(sampler) -> None:
    """A point at 0.6 is found again, and noise of the raised level has its level's standard deviation."""
    seen: list[Level] = []

    def exact(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        index_in(TABLE, level)
        seen.append(level)
        spread = (x - level.alpha.float() * 0.6).std() / level.sigma.float()
        assert 0.97 < float(spread) < 1.03
        return Prediction(torch.full_like(x, 0.6))

    torch.manual_seed(0)
    grid = grids.respaced(TABLE, 10)
    x = grid[0].alpha.float() * 0.6 + grid[0].sigma.float() * torch.randn(4, 1, 64, 64)
    *_, last = sampler(
        exact, x, grid, churn=4.0, snap=lambda level: nearest_in(TABLE, level), noise=lambda step: torch.randn(x.shape)
    )
    raised = [level for level in seen if float((grid.nsr - level.nsr).abs().min()) > 1e-9]
    assert raised
    torch.testing.assert_close(last.x, torch.full_like(x, 0.6))


def test_a_model_that_was_always_told_a_class_is_asked_for_none_in_vain() -> None:
    def model(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        return Prediction(x)

    source = Diffusion(model, euler, grids.flow(2), (1, 2, 2), classes=3, always_told=("label",))
    for labels in (None, torch.tensor([0, -1])):
        with pytest.raises(ValueError, match="label_dropout=0 has never learned"):
            source([0, 1], labels)
    assert source([0, 1], torch.tensor([0, 2])).shape == (2, 1, 2, 2)


def test_a_preview_walks_a_part_of_the_grid_with_both_ends() -> None:
    grid = grids.full(TABLE)
    few = thinned(grid, 10)
    assert len(few) == 11
    assert few.nsr[0] == grid.nsr[0] and few.nsr[-1] == 0
    index_in(TABLE, few)
    assert len(thinned(grids.karras(4), 10)) == 5
