"""Computed grids: never worse than those they are compared with, and the walk itself where all its steps are asked."""

from __future__ import annotations

import pytest
import torch

from sfumato import grids
from sfumato.core.exact import Gaussian
from sfumato.evaluation.schedule import distances, schedule, shortest
from sfumato.samplers.ddim import ddim
from sfumato.sources import Diffusion

MODEL = Gaussian(torch.zeros(4), torch.tensor([2.0, 1.0, 0.1, 0.01]))
WALK = Diffusion(MODEL, ddim, grids.karras(64), (1, 2, 2))
SEEDS = range(32)


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_no_compared_grid_ends_nearer_to_the_walk(steps: int) -> None:
    others = {"karras": grids.karras(steps), "logsnr": grids.logsnr(steps)}
    chosen = schedule(WALK, steps, others, SEEDS)
    reached = float(distances(WALK, chosen.grid, SEEDS).mean())
    assert len(chosen.grid) == steps + 1
    assert all(reached <= float(distances(WALK, grid, SEEDS).mean()) for grid in others.values())


def test_all_steps_of_the_walk_are_the_walk() -> None:
    chosen = schedule(WALK, 64, {}, SEEDS)
    assert torch.equal(chosen.grid.sigma, WALK.grid.sigma)
    assert float(distances(WALK, chosen.grid, SEEDS).max()) == 0


def test_the_path_of_least_cost() -> None:
    cost = torch.tensor([[0.0, 5, 1, 9], [0, 0, 1, 1], [0, 0, 0, 3], [0, 0, 0, 0]])
    assert shortest(cost, 1) == [0, 3] and shortest(cost, 2) == [0, 2, 3] and shortest(cost, 3) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("steps", "seeds", "message"), [(0, 32, "1 to 64"), (65, 32, "1 to 64"), (6, 4, "at least 16 seeds")]
)
def test_mistakes(steps: int, seeds: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule(WALK, steps, {}, range(seeds))
