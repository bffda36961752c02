"""Which steps of a chain the schedulers of diffusers visit, and which of our grids that is.

A chain of T steps counted 0..T-1 is walked in N by one of three spacings, with their names in diffusers:

    trailing    T-1, T-1 - T/N, ...  rounded                  sample.grid=trailing sample.grid.steps=N
    linspace    0 .. T-1 evenly  (rounded, or in between)     sample.grid=respaced sample.grid.steps=N
    leading     0, T//N, 2 (T//N), ...  plus an offset        the same with sample.grid.spec=ddim

The multistep solvers take N + 1 of leading and linspace and leave out the cleanest.

References:
    Lin, Liu, Li, Yang. Common Diffusion Noise Schedules and Sample Steps Are Flawed. 2024, Table 2.
    https://arxiv.org/abs/2305.08891
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from sfumato import grids
from sfumato.core.level import Level, index_in
from sfumato.runs.recipe import Part, part

SPACINGS = ("leading", "trailing", "linspace")


def visited(spacing: str, total: int, steps: int, offset: int = 0, *, but_cleanest: bool = False) -> list[float]:
    """Return the steps that a spacing visits, falling, each in 0..T-1; those of linspace may lie in between.

    Arguments:
        spacing: "leading", "trailing" or "linspace".
        total: Number T of steps of the chain.
        steps: Number N of steps of the walk.
        offset: Added to every step of "leading".
        but_cleanest: Whether N + 1 are spaced and the cleanest is left out.

    >>> visited("leading", 1000, 4), visited("trailing", 1000, 4), visited("linspace", 10, 4)
    ([750, 500, 250, 0], [999, 749, 499, 249], [9.0, 6.0, 3.0, 0.0])
    """
    count = steps + but_cleanest
    if spacing == "trailing":
        return [int(t) - 1 for t in np.round(np.arange(total, 0, -total / steps))]
    if spacing == "leading":
        rising: list[float] = [i * (total // count) + offset for i in range(count)]
    else:
        rising = np.linspace(0, total - 1, count).tolist()
    return rising[::-1][: len(rising) - but_cleanest]


def rounded(steps: Sequence[float]) -> list[int]:
    """Return steps rounded to those that a chain has, half to even."""
    return [round(t) for t in steps]


def grid_of(steps: Sequence[int], total: int) -> Part:
    """Return the grid that visits these steps of a chain of `total`: by name where there is one, else listed."""
    count = len(steps)
    angle = torch.linspace(0, 1, total + 1, dtype=torch.float64)
    table = Level(angle.cos(), angle.sin())  # any falling levels will do: their numbers alone matter
    named: list[tuple[Callable[[], Level], Part]] = [
        (lambda: grids.full(table), part("grid", "full")),
        (lambda: grids.respaced(table, count, "ddim"), part("grid", "respaced", steps=count, spec="ddim")),
        (lambda: grids.trailing(table, count), part("grid", "trailing", steps=count)),
        (lambda: grids.respaced(table, count), part("grid", "respaced", steps=count)),
    ]
    for make, grid in named:
        try:
            levels = make()[:-1]
        except ValueError:  # this one does not make so many
            continue
        if (index_in(table, levels) - 1).tolist() == list(steps):
            return grid
    return part("grid", "listed", entries=tuple(t + 1 for t in steps))
