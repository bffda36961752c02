"""Grids computed for a model: the levels of its own fine walk whose sub-grid ends nearest to where the walk ends.

The error of one first-order step from level i to level j of the walk is known from its states: the step from x_i with
the estimate D(x_i) held constant, against x_j. Relative to the size of x_j, these errors add up along a sub-grid at
most, so the best sub-grid of N steps is a shortest path of N edges. It is compared with other grids by the sampler
itself, and the one that ends nearest to the walk on the training seeds is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core.level import Level, like
from sfumato.samplers._multistep import ddim, points
from sfumato.sources import Diffusion, in_turn

FEWEST = 16  # seeds, below which an interval says nothing


@dataclass(frozen=True)
class Chosen:
    """A computed grid.

    Attributes:
        grid: Its levels, shape (N + 1,).
        taken: The name of the candidate that it is: "computed", or a compared grid that ended nearer.
        errors: By candidate, the mean distance to the end of the walk on the training seeds.
    """

    grid: Level
    taken: str
    errors: dict[str, float]


def labels_of(source: Diffusion, seeds: Sequence[int]) -> Tensor | None:
    """Return the classes of seeds, all classes in turn; None for a model without classes."""
    return in_turn(seeds, range(source.classes) if source.classes else None)


def distances(source: Diffusion, grid: Level, seeds: Sequence[int]) -> Tensor:
    """Return how far a grid's images are from those of the source's own grid: root mean square, shape (seeds,)."""
    labels = labels_of(source, seeds)
    ends = [source.having(grid=each).floats(seeds, labels) for each in (source.grid, grid)]
    return (ends[0] - ends[1]).flatten(1).square().mean(1).sqrt()


def shortest(cost: Tensor, steps: int) -> list[int]:
    """Return the path 0 = i_0 < ... < i_N = last of least total cost.

    Arguments:
        cost: Cost of a step from i to j > i, shape (M + 1, M + 1).
        steps: N, in [1, M].
    """
    size = len(cost)
    cost = cost.masked_fill(torch.ones(size, size).tril().bool(), torch.inf)
    best, came = cost[0], []
    for _ in range(steps - 1):
        best, where = (best[:, None] + cost).min(0)
        came.append(where)
    path = [size - 1]
    for where in reversed(came):
        path.append(int(where[path[-1]]))
    return [0, *reversed(path)]


@torch.no_grad()
def step_errors(source: Diffusion, seeds: Sequence[int]) -> Tensor:
    """Return the relative error of a first-order step between any two levels of a walk, shape (M + 1, M + 1)."""
    labels, grid, at = labels_of(source, seeds), source.grid, points(source.grid)
    noise = source.noise(seeds)
    states = list(source.steps(noise.start(), noise, labels))
    cost = torch.zeros(len(grid), len(grid), dtype=torch.float64)
    walk = [like(grid[0].sigma, noise.start()) * noise.start(), *(state.x for state in states)]
    label = None if labels is None else labels.to(source.device)
    for i in range(len(grid) - 1):
        x0 = source.denoiser(walk[i], grid[i], label).x0
        for j in range(i + 1, len(grid)):
            there = ddim(walk[i], x0, at[i], at[j]) if at[j].sigma > 0 else x0
            cost[i, j] = ((there - walk[j]).square().mean() / walk[j].square().mean()).sqrt().double().cpu()
    return cost


def schedule(source: Diffusion, steps: int, others: Mapping[str, Level], seeds: Sequence[int]) -> Chosen:
    """Choose levels of a model's own walk that end nearest to it.

    Arguments:
        source: The model with a deterministic sampler and the grid of the fine walk, M steps.
        steps: Steps N of the computed grid, in [1, M].
        others: Compared grids by name.
        seeds: Training seeds, at least 16.

    Raises:
        ValueError: If there are too few seeds, or the walk has fewer steps than asked for.
    """
    most = len(source.grid) - 1
    if not 1 <= steps <= most:
        raise ValueError(f"A computed grid has 1 to {most} steps, those of the walk; got {steps}.")
    if len(seeds) < FEWEST:
        raise ValueError(f"A grid is computed from at least {FEWEST} seeds; got {len(seeds)}. Give more.")
    grids = {"computed": source.grid[shortest(step_errors(source, seeds), steps)], **others}
    errors = {name: float(distances(source, grid, seeds).mean()) for name, grid in grids.items()}
    taken = min(errors, key=lambda name: errors[name])
    return Chosen(grids[taken], taken, errors)
