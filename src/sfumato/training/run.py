"""A run: the directory that training writes and that sampling and evaluating need no flags for.

    RUN/recipe.json            the resolved recipe, the data's fingerprint, hardware and versions
    RUN/metrics.jsonl          one record per log interval
    RUN/checkpoints/step-N/    see `training.checkpoint`
    RUN/sheets/IMAGES.png      sample sheets during training
    RUN/samples/, RUN/results/ what later commands make
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sfumato.core.denoiser import Denoiser, Preconditioned
from sfumato.core.find import find, nearest
from sfumato.data import load
from sfumato.data.dataset import Dataset, sigma_data
from sfumato.sources import Diffusion
from sfumato.training import checkpoint
from sfumato.training.assemble import build_denoiser, build_grid, build_network, build_sampler
from sfumato.training.recipe import Recipe, RecipeError, Shape


def load_data(recipe: Recipe, split: str, root: Path | str | None = None) -> Dataset:
    """Load one split of a recipe's data; `first` limits the training split only."""
    data = recipe.data
    return load(
        data.name,
        split=split,
        root=root,
        val=data.val,
        classes=data.classes or None,
        first=data.first if split == "train" else None,
        size=data.size,
        pad=data.pad,
    )


def resolve(recipe: Recipe, data: Dataset) -> Recipe:
    """Fill in what the data decides: the image shape, the class names, and sigma_data if it is to be estimated."""
    channels, height, width = data.shape
    classes = data.classes if recipe.data.labels else ()
    estimated = sigma_data(data) if recipe.sigma_data is None else recipe.sigma_data
    return replace(
        recipe, shape=Shape(channels, height, width, tuple(classes)), sigma_data=round(float(estimated), 4)
    )


@dataclass(frozen=True)
class Run:
    """An opened run.

    Attributes:
        path: Its directory.
        recipe: Resolved.
        about: The rest of recipe.json: fingerprint, hardware.
    """

    path: Path
    recipe: Recipe
    about: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """Open a run directory.

        Raises:
            RecipeError: If it is not one.
        """
        path = Path(path)
        file = path / "recipe.json"
        if not file.exists():
            raise RecipeError(f"{path} is not a run (no recipe.json). `sfumato train RECIPE --out {path}` makes one.")
        tree = json.loads(file.read_text())
        return cls(path, Recipe.from_json(tree.pop("recipe")), tree)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names the model knows; () if unlabelled."""
        return self.recipe.shape.classes if self.recipe.shape else ()

    @cached_property
    def checkpoint(self) -> checkpoint.Checkpoint:
        """The newest whole checkpoint.

        Raises:
            CheckpointError: If there is none.
        """
        found = checkpoint.latest(self.path / "checkpoints")
        if found is None:
            raise checkpoint.CheckpointError(f"{self.path} has no checkpoint yet; train it first.")
        return found

    def denoiser(self, use: str | None = None, device: torch.device | str = "cpu") -> Preconditioned:
        """Return the trained denoiser.

        Arguments:
            use: Which average of the weights ("raw", "power-0.10", ...); None for the recipe's choice.
            device: Where to put it.

        Raises:
            RecipeError: If that average was not kept.
        """
        use = use or self.recipe.ema.use
        stem = "network" if use == "raw" else f"ema-{use}"
        if stem not in self.checkpoint.tensors:
            kept = ["raw", *(s.removeprefix("ema-") for s in self.checkpoint.tensors if s.startswith("ema-"))]
            raise RecipeError(nearest("average", use, kept))
        network = build_network(self.recipe)
        network.load_state_dict(self.checkpoint.tensors[stem])
        return build_denoiser(self.recipe, network.eval().requires_grad_(False)).to(device)

    def source(
        self, *, use: str | None = None, device: torch.device | str = "cpu", denoiser: Denoiser | None = None
    ) -> Diffusion:
        """Return the run as an image source, sampled as its recipe says.

        Arguments:
            use: Which average of the weights.
            device: Where to compute.
            denoiser: A denoiser to use in place of the run's own (for counting, say); not guided yet.
        """
        recipe, shape = self.recipe, self.recipe.shape
        if shape is None:
            raise RecipeError(f"The recipe of {self.path} is not resolved; it was not written by a run.")
        guided = denoiser or self.denoiser(use, device)
        if recipe.sample.guidance != 1.0:
            if not self.classes:
                raise RecipeError("Guidance needs a class-conditional model; this one has no labels. Use guidance=1.")
            guided = find("guidance", "cfg")(guided, recipe.sample.guidance)
        return Diffusion(
            guided,
            build_sampler(recipe),
            build_grid(recipe),
            (shape.channels, shape.height, shape.width),
            classes=len(shape.classes),
            batch=recipe.sample.batch,
            device=device,
        )

    def with_recipe(self, recipe: Recipe) -> Run:
        """Return the run with another recipe: other sampling or evaluation settings for the same weights."""
        return Run(self.path, recipe, self.about)
