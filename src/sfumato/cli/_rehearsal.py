"""Walk a recipe's sampling once with a denoiser that knows nothing: what it costs, and whether it can be done at all.

Training draws its first sheet after a tenth of its budget. A sampler's option or a grid that does not fit would end
the run there; rehearsed, it ends before anything is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from sfumato.core.denoiser import Prediction, State
from sfumato.core.find import find
from sfumato.core.level import Level
from sfumato.training.recipe import Recipe, Shape
from sfumato.training.run import Run


class Blank:
    """A denoiser that sees a grey image everywhere and counts how many images it was asked for."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        self.images += len(x)
        return Prediction(torch.zeros_like(x), None)


def _walk(recipe: Recipe, blank: Blank) -> tuple[int, Iterator[State]]:
    source = Run(Path(), recipe, {}).source(denoiser=blank)
    labels = torch.zeros(1, dtype=torch.int64) if source.classes else None
    return len(source.grid) - 1, source.states([0], labels)


def sampling_cost(recipe: Recipe) -> tuple[int, int]:
    """Return (steps of the grid, network calls per image), counted by walking the grid once.

    Arguments:
        recipe: With its shape and sigma_data.
    """
    blank = Blank()
    steps, states = _walk(recipe, blank)
    for _ in states:
        pass
    return steps, blank.images


def rehearse(recipe: Recipe) -> None:
    """Refuse a recipe whose sampling or scoring names what is not there, before it is trained.

    Arguments:
        recipe: Need not have its shape yet.

    Raises:
        ValueError: As the sampler, the grid, the guidance or the extractor would.
    """
    find("metrics.extractors", recipe.evaluate.extractor)
    if recipe.shape is None:
        classes = ("any",) if recipe.data.labels else ()
        recipe = dataclasses.replace(recipe, shape=Shape(1, 8, 8, classes), sigma_data=recipe.sigma_data or 0.5)
    next(_walk(recipe, Blank())[1])
