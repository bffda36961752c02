"""Computed grids: never worse than those they are compared with, nor than the best found by trying them all."""

from __future__ import annotations

import pytest
import torch

from sfumato import grids
from sfumato.core.exact import Gaussian
from sfumato.evaluation.schedule import Walk, calls_of, descend, evenly, schedule, shortest, steps_within
from sfumato.samplers.ancestral import ancestral
from sfumato.samplers.ddim import ddim
from sfumato.samplers.euler import euler
from sfumato.samplers.heun import heun
from sfumato.sources import Diffusion

MODEL = Gaussian(torch.zeros(4), torch.tensor([2.0, 1.0, 0.1, 0.01]))
SOURCE = Diffusion(MODEL, ddim, grids.karras(64), (1, 2, 2), batch=12)  # smaller than the seeds: several batches
WALK, HELD_OUT = Walk(SOURCE, range(32)), Walk(SOURCE, range(32, 64))


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_no_compared_grid_ends_nearer_to_the_walk(steps: int) -> None:
    others = {"karras": grids.karras(steps), "logsnr": grids.logsnr(steps)}
    chosen = schedule(WALK, steps, others)
    reached = float(WALK.distances(chosen.grid).mean())
    assert len(chosen.grid) == steps + 1
    assert reached == chosen.errors[chosen.taken]
    assert all(reached <= float(WALK.distances(grid).mean()) for grid in others.values())


@pytest.mark.parametrize("sampler", [ddim, euler])
@pytest.mark.parametrize("steps", [1, 2])
def test_as_near_as_the_best_of_all_grids(sampler: object, steps: int) -> None:
    """The Gaussian's walk is known: every grid of 1 or 2 of its levels is tried against where it ends."""
    walk = Walk(SOURCE.having(sampler=sampler), range(16))  # type: ignore[arg-type]
    fine = walk.source.grid
    first = range(64) if steps == 1 else range(0, 64, 3)
    tried = [[i, *([] if steps == 1 else [j])] for i in first for j in ([i] if steps == 1 else range(i + 1, 64, 3))]
    best = min(float(walk.distances(fine[[*numbers, 64]]).mean()) for numbers in tried)
    chosen = schedule(walk, steps, {"karras": grids.karras(steps)})
    assert chosen.errors[chosen.taken] <= best * (1 + 1e-6)


def test_the_best_level_of_one_step_is_known() -> None:
    """One step from s n ends at s v / (v + s^2) n, and the walk at nearly sqrt(v) n: nearest at s^2 = v."""
    source = SOURCE.having(denoiser=Gaussian(torch.zeros(4), torch.full((4,), 0.25)))
    fine = grids.karras(512)
    chosen = schedule(Walk(source, range(16)), 1, {}, fine)
    spacing = float((fine.sigma[:-1] - 0.5).abs().min())
    assert abs(float(chosen.grid.sigma[0]) - 0.5) <= spacing + 0.02


def test_computed_levels_are_nearer_on_other_seeds() -> None:
    chosen = schedule(WALK, 3, {"karras": grids.karras(3)}, grids.karras(512))
    gain = HELD_OUT.distances(grids.karras(3)) - HELD_OUT.distances(chosen.grid)
    assert chosen.taken == "computed"
    assert float(gain.mean()) > 1.96 * float(gain.std()) / 32**0.5


def test_descent_improves_on_the_path_under_a_sampler_of_second_order() -> None:
    walk = Walk(SOURCE.having(sampler=heun), range(16))
    path = walk.source.grid[shortest(walk.step_errors(), 3)]
    assert schedule(walk, 3, {}).errors["computed"] < float(walk.distances(path).mean())


def test_descent_finds_the_least_of_a_convex_function_and_keeps_numbers_rising() -> None:
    asked: list[list[int]] = []

    def distance(numbers: list[int]) -> float:
        asked.append(numbers)
        return float((numbers[0] - 41) ** 2 + (numbers[1] - 77) ** 2)

    assert descend(distance, [35, 69], 96) == [41, 77]
    assert all(0 <= a < b < 96 for a, b in asked)


def test_all_steps_of_the_walk_are_the_walk() -> None:
    chosen = schedule(WALK, 64, {})
    assert torch.equal(chosen.grid.sigma, WALK.source.grid.sigma)
    assert float(WALK.distances(chosen.grid).max()) == 0


def test_batches_change_nothing() -> None:
    whole = Walk(Diffusion(MODEL, ddim, grids.karras(64), (1, 2, 2), batch=32), range(32))
    assert torch.allclose(whole.step_errors(), WALK.step_errors(), rtol=1e-5, atol=1e-7)
    assert torch.allclose(whole.distances(grids.karras(4)), WALK.distances(grids.karras(4)), rtol=1e-5)


def test_the_path_of_least_cost() -> None:
    cost = torch.tensor([[0.0, 5, 1, 9], [0, 0, 1, 1], [0, 0, 0, 3], [0, 0, 0, 0]])
    assert shortest(cost, 1) == [0, 3] and shortest(cost, 2) == [0, 2, 3] and shortest(cost, 3) == [0, 1, 2, 3]


def test_a_budget_of_calls_is_kept() -> None:
    fine = grids.karras(100)
    assert steps_within(ddim, fine, 6) == 6
    assert steps_within(heun, fine, 6) == 3 and calls_of(heun, evenly(fine, 3)) == 5  # the last step is Euler's
    assert steps_within(ddim, grids.karras(4), 6) == 4
    with pytest.raises(ValueError, match="deterministic"):
        steps_within(ancestral, fine, 6)


@pytest.mark.parametrize(
    ("steps", "seeds", "message"), [(0, 32, "1 to 64"), (65, 32, "1 to 64"), (6, 4, "at least 16 seeds")]
)
def test_mistakes(steps: int, seeds: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule(Walk(SOURCE, range(seeds)), steps, {})
