"""The runs of a playground: their weights, loaded once, and what the page must know of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from sfumato.app._controls import attribute_control
from sfumato.core.denoiser import Preconditioned
from sfumato.core.find import entries, find
from sfumato.core.level import Level
from sfumato.data.dataset import DataError, Dataset
from sfumato.download import no_downloads
from sfumato.report.signature import settings_of
from sfumato.runs.check import check_sampling
from sfumato.runs.computed import stored
from sfumato.runs.conditions import usual_method
from sfumato.runs.kinds import DENOISER, require
from sfumato.runs.part import option
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Part, Recipe, RecipeError, Sample, Shape
from sfumato.runs.resolve import load_data
from sfumato.runs.run import Run

STEPS = 18  # of a grid that has no number of steps of its own, when its fitness is tried


class Model:
    """One run on one device.

    Arguments:
        path: Directory of the run.
        device: Torch device that computes.

    Raises:
        RecipeError: If it is no run that makes images of 1 or 3 channels.
        CheckpointError: If it has no checkpoint yet.
    """

    def __init__(self, path: Path | str, device: str) -> None:
        self.run, self.device = Run.open(path), device
        shape = self.run.recipe.shape
        remedy = "The playground shows how images emerge step by step. Name a diffusion run; see `sfumato runs`."
        if not self.run.plan.kind.walks:
            require(DENOISER, self.run.recipe, str(path), remedy)
        if shape is None or shape.channels not in (1, 3):
            made = "no images yet" if shape is None else f"images of {shape.channels} channels"
            raise RecipeError(
                f"The playground shows images of 1 or 3 channels; {path} makes {made}. Draw it with: sfumato sample "
                f"{path}"
            )
        self.shape: Shape = shape
        self._loaded: dict[str, Preconditioned] = {}
        self.denoiser(None)  # refuses a classifier or damaged weights now, not at the first click,
        check_sampling(self.run.plan)  # and a recipe that cannot be sampled

    def denoiser(self, use: str | None) -> Preconditioned:
        """Return the denoiser with an average of the weights; None for the recipe's choice."""
        use = use or self.run.recipe.ema.use
        if use not in self._loaded:
            self._loaded[use] = self.run.denoiser(use, self.device)
        return self._loaded[use]

    @cached_property
    def held(self) -> Dataset:
        """The test split of the run's data, read at the first question; nothing is downloaded.

        Raises:
            DataError: If it is not at hand, or its images are not of the model's shape.
        """
        with no_downloads():
            data = load_data(self.run.recipe, "test")
        shape = (self.shape.channels, self.shape.height, self.shape.width)
        if data.shape != shape:
            raise DataError(
                f"{data.name} holds images of shape {data.shape} and the model makes {shape}. Drop a picture."
            )
        return data

    def lender(self, where: Mapping[str, str], image: Tensor | None) -> Dataset | None:
        """Return the test images that lend what is not given (`Run.lender`); they are read, never downloaded."""
        return self.run.lender(where, image, lambda: self.held)

    @property
    def computed(self) -> list[str]:
        """The names of the grids that were computed for the run."""
        return stored(self.run)

    def recipe(self, sample: Sample) -> Recipe:
        """Return the run's recipe with other sampling settings."""
        return replace(self.run.recipe, sample=sample)

    def settings(self, sample: Sample, use: str | None) -> dict[str, Any]:
        """Return what decides the images, for their signature (`report.signature.settings_of`)."""
        return settings_of(self.run.with_recipe(self.recipe(sample)), use, self.device)

    def described(self) -> dict[str, Any]:
        """Return what the page must know, as JSON values."""
        recipe, sample, shape = self.run.recipe, self.run.recipe.sample, self.shape
        guided = replace(sample, guidance=2.0, interval=None)
        return {
            "name": self.run.path.name if self.run.path.name else str(self.run.path),
            "recipe": recipe.name,
            "shape": [shape.channels, shape.height, shape.width],
            "classes": list(self.run.classes),
            "seen": self.run.checkpoint.state["seen"],
            "uses": self.run.tracked,
            "use": recipe.ema.use,
            "sampler": _part(sample.sampler),
            "grid": _part(sample.grid),
            "guidance": sample.guidance,
            "unguided": _refusal(lambda: check_sampling(plan(self.recipe(guided)))),
            "grids": {name: _refusal(partial(self._on_grid, name)) for name in entries("grid")},
            "computed": self.computed,
            "attributes": [attribute_control(row) for row in shape.attributes],
            "beside": list(shape.beside),
            "condition": recipe.data.condition,
            "methods": {name: self._method(name) for name in entries("task")},
            "always": list(self.run.plan.always_told),
        }

    def _method(self, task: str) -> str:
        """Return the usual method for a task; for one that these images cannot have, that of any other."""
        shape = self.shape
        try:
            return usual_method(self.run.plan, find("task", task)((shape.channels, shape.height, shape.width)))
        except ValueError:
            return usual_method(self.run.plan)

    def _on_grid(self, name: str) -> Level:
        """Return a grid of a name for this run, of `STEPS` steps if it can be told how many."""
        part = Part("grid", name)
        if option(part, "steps") is not None:
            part = part.with_options(steps=STEPS)
        return plan(self.recipe(replace(self.run.recipe.sample, grid=part))).grid


def _refusal(attempt: Callable[[], object]) -> str | None:
    """Return why an attempt is refused; None if it is not."""
    try:
        attempt()
    except ValueError as error:
        return str(error)
    return None


def _part(part: Part) -> Mapping[str, Any]:
    finite = {k: v for k, v in part.options.items() if not isinstance(v, float) or math.isfinite(v)}  # as JSON must be
    return {"name": part.name, "options": finite}
