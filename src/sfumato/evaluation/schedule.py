"""Grids computed for a run: the levels at which few steps of its sampler end nearest to where its fine walk ends.

Levels are chosen among many candidates of the run's own, so they are levels that its network knows. Two searches follow
each other:

    a shortest path      the error of one first-order step from level i to level j of the fine walk is known from its
                         states: the step from x_i with the estimate D(x_i) held constant, against x_j. Relative to the
                         size of x_j these errors add up along a sub-grid at most, so N steps are a path of N edges.
    coordinate descent   from that path, or from a compared grid that ends nearer: one level at a time moves among the
                         candidates while the sampler itself then ends nearer to the walk.

The walk to end near is made once for a set of seeds (`Walk`). The grid that ends nearest on the training seeds is
taken; other seeds judge it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sfumato.core.denoiser import Counted, Prediction, Sampler
from sfumato.core.level import Level, like
from sfumato.samplers._multistep import ddim, points
from sfumato.sources import Diffusion, in_turn

FEWEST = 16  # seeds, below which an interval says nothing
TRIES = 32  # grids that the descent walks at most, for each level
STRIDES = 8  # the first stride of the descent is the number of candidates over this


@dataclass(frozen=True)
class Walk:
    """The fine walk of a model, and where it ends for some seeds.

    Attributes:
        source: The model with a deterministic sampler and the grid of the fine walk, M steps.
        seeds: One seed per image; classes are taken in turn.
    """

    source: Diffusion
    seeds: Sequence[int]

    @property
    def batches(self) -> list[tuple[Sequence[int], Tensor | None]]:
        """Seeds and labels, up to `source.batch` at a time."""
        size, classes = self.source.batch, self.source.classes
        parts = [self.seeds[i : i + size] for i in range(0, len(self.seeds), size)]
        return [(part, in_turn(part, range(classes) if classes else None)) for part in parts]

    def images(self, grid: Level) -> Tensor:
        """Return the images that the sampler ends at on a grid, shape (seeds, C, H, W)."""
        source = self.source.having(grid=grid)
        return torch.cat([source.floats(*batch) for batch in self.batches])

    @cached_property
    def ends(self) -> Tensor:
        """The images of the fine walk."""
        return self.images(self.source.grid)

    def distances(self, grid: Level) -> Tensor:
        """Return how far a grid's images are from those of the fine walk: root mean square, float64 (seeds,)."""
        return (self.images(grid) - self.ends).double().flatten(1).square().mean(1).sqrt().cpu()

    @torch.no_grad()
    def step_errors(self) -> Tensor:
        """Return the relative error of a first-order step between any two levels of the walk, shape (M + 1, M + 1)."""
        source, grid, at = self.source, self.source.grid, points(self.source.grid)
        missed, size = torch.zeros(2, len(grid), len(grid), dtype=torch.float64)
        for seeds, labels in self.batches:
            noise = source.noise(seeds)
            start = like(grid[0].sigma, noise.start()) * noise.start()
            walk = [start, *(state.x for state in source.steps(noise.start(), noise, labels))]
            label = None if labels is None else labels.to(source.device)
            for i in range(len(grid) - 1):
                x0 = source.denoiser(walk[i], grid[i], label).x0
                for j in range(i + 1, len(grid)):
                    there = ddim(walk[i], x0, at[i], at[j]) if at[j].sigma > 0 else x0
                    missed[i, j] += float((there - walk[j]).square().sum())
                    size[i, j] += float(walk[j].square().sum())
        return (missed / size.clamp(min=1e-30)).sqrt()


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


def descend(distance: Callable[[list[int]], float], start: list[int], candidates: int) -> list[int]:
    """Return numbers of candidates, moved one at a time while the distance falls, by ever smaller strides.

    Arguments:
        distance: What is minimised.
        start: Rising numbers in [0, candidates).
        candidates: How many there are.
    """
    place, best, tried = start, distance(start), {tuple(start)}
    stride = max(1, candidates // STRIDES)
    while stride:
        moved = False
        for k in range(len(place)):
            for move in (-stride, stride):
                trial = [*place[:k], place[k] + move, *place[k + 1 :]]
                edges = [-1, *trial, candidates]
                apart = all(a < b for a, b in zip(edges, edges[1:]))
                if not apart or tuple(trial) in tried or len(tried) > TRIES * len(start):
                    continue
                tried.add(tuple(trial))
                if (found := distance(trial)) < best:
                    place, best, moved = trial, found, True
        if not moved:
            stride = max(1, stride // 4) if stride > 1 else 0
    return place


def numbers_near(candidates: Level, grid: Level) -> list[int]:
    """Return the numbers of the candidates nearest to a grid's levels, in angle."""
    angles, wanted = (torch.atan2(level.sigma, level.alpha) for level in (candidates, grid))
    return [int(i) for i in (angles[None] - wanted[:, None]).abs().argmin(1)]


def evenly(candidates: Level, steps: int) -> Level:
    """Return a grid of evenly numbered candidates, the first and the clean one among them, shape (steps + 1,)."""
    last = len(candidates) - 2
    return candidates[[*(round(last * i / max(steps - 1, 1)) for i in range(steps)), last + 1]]


def calls_of(sampler: Sampler, grid: Level) -> int:
    """Return how often a sampler calls the network on a grid.

    Raises:
        ValueError: If the sampler adds noise.
    """
    counted, x = Counted(lambda x, level, label=None: Prediction(0 * x)), torch.zeros(1, 1, 1, 1)
    for _ in sampler(counted, x, grid, noise=None, label=None):
        pass
    return counted.nfe


def steps_within(sampler: Sampler, candidates: Level, calls: int) -> int:
    """Return the most steps, at most all of the candidates', that need no more than so many calls; 0 for none."""
    most = min(calls, len(candidates) - 1)
    return next((n for n in range(most, 0, -1) if calls_of(sampler, evenly(candidates, n)) <= calls), 0)


def schedule(walk: Walk, steps: int, others: Mapping[str, Level], candidates: Level | None = None) -> Chosen:
    """Choose levels of a model that end nearest to its fine walk.

    Arguments:
        walk: The fine walk, M steps, for training seeds, at least 16.
        steps: Steps N of the computed grid, in [1, M].
        others: Compared grids by name.
        candidates: The levels to choose from and the clean one; those of the walk unless given.

    Raises:
        ValueError: If there are too few seeds, or the walk has fewer steps than asked for.
    """
    fine, most = walk.source.grid, len(walk.source.grid) - 1
    candidates = fine if candidates is None else candidates
    if not 1 <= steps <= most:
        raise ValueError(f"A computed grid has 1 to {most} steps, those of the walk; got {steps}.")
    if len(walk.seeds) < FEWEST:
        raise ValueError(f"A grid is computed from at least {FEWEST} seeds; got {len(walk.seeds)}. Give more.")

    def distance(numbers: list[int]) -> float:
        return float(walk.distances(candidates[[*numbers, len(candidates) - 1]]).mean())

    starts = [fine[shortest(walk.step_errors(), steps)], *others.values()]
    near = [numbers_near(candidates, grid[:-1]) for grid in starts]
    near = [numbers for numbers in near if all(a < b for a, b in zip(numbers, numbers[1:]))]
    moved = descend(distance, min(near, key=distance), len(candidates) - 1)
    grids = {"computed": candidates[[*moved, len(candidates) - 1]], **others}
    errors = {name: float(walk.distances(grid).mean()) for name, grid in grids.items()}
    taken = min(errors, key=lambda name: errors[name])
    return Chosen(grids[taken], taken, errors)
