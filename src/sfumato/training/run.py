"""A run: the directory that training writes and that sampling and evaluating need no flags for.

    RUN/recipe.json            the resolved recipe, the data's fingerprint, hardware and versions
    RUN/metrics.jsonl          one record per log interval
    RUN/checkpoints/step-N/    see `training.checkpoint`
    RUN/sheets/IMAGES.png      sample sheets during training
    RUN/samples/, RUN/results/ what later commands make
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sfumato.core.classifier import NoisyClassifier
from sfumato.core.denoiser import Denoiser, Preconditioned
from sfumato.core.find import find, nearest
from sfumato.data import load
from sfumato.data.dataset import Dataset, sigma_data
from sfumato.guidance.classifier import gradient
from sfumato.sources import Diffusion
from sfumato.training import checkpoint
from sfumato.training.assemble import (
    asks,
    build_classifier,
    build_denoiser,
    build_grid,
    build_network,
    build_sampler,
    option,
    trains,
)
from sfumato.training.check import check_sampling
from sfumato.training.recipe import Recipe, RecipeError, Shape


def load_data(recipe: Recipe, split: str, root: Path | str | None = None) -> Dataset:
    """Load one split of a recipe's data; `first` limits the training split only."""
    data = recipe.data
    return load(
        data.name,
        split=split,
        root=root,
        val=data.val,
        test=data.test,
        classes=data.classes or None,
        first=data.first if split == "train" else None,
        size=data.size,
        pad=data.pad,
    )


def resolve(recipe: Recipe, data: Dataset) -> Recipe:
    """Fill in what the data decides: the image shape, the class names, and sigma_data if it is to be estimated.

    Raises:
        RecipeError: If the recipe is for images of another shape or another number of classes.
    """
    shape = Shape(*data.shape, tuple(data.classes) if recipe.data.labels else ())
    stated = recipe.shape
    if stated is not None and replace(stated, classes=shape.classes) != shape:
        raise RecipeError(
            f"{recipe.name} is for images of {stated.channels}x{stated.height}x{stated.width}, and {data.name} has "
            f"{'x'.join(map(str, data.shape))}. Use data.size or data.pad, or shape=none to take the data's shape."
        )
    if stated is not None and len(stated.classes) != len(shape.classes):
        raise RecipeError(
            f"{recipe.name} is for {len(stated.classes)} classes, and {data.name} has {len(shape.classes)}. Use "
            "data.labels or data.classes, or shape=none to take the data's classes."
        )
    estimated = sigma_data(data) if recipe.sigma_data is None else recipe.sigma_data
    return replace(recipe, shape=shape, sigma_data=round(float(estimated), 4))


def _unlabelled(denoiser: Denoiser) -> Denoiser:
    """Return a denoiser that never hears of labels, for a classifier to tell an unlabelled model of them."""
    return lambda x, level, label=None: denoiser(x, level, None)


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
        try:
            tree = json.loads(file.read_text())
            recipe = tree.pop("recipe")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecipeError(
                f"{file} is damaged ({type(error).__name__}: {error}). A copy of its recipe is in state.json of each "
                f"folder in {path / 'checkpoints'}; restore it from there."
            ) from None
        return cls(path, Recipe.from_json(recipe), tree)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names that can be asked for: the model's, or those of the classifier that guides it; () if none."""
        own = self.recipe.shape.classes if self.recipe.shape else ()
        guide = self.recipe.sample.classifier
        return own if own or guide is None else Run.open(guide).classes

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

    def network(self, use: str | None = None) -> nn.Module:
        """Return the trained network, frozen.

        Arguments:
            use: Which average of the weights ("raw", "power-0.10", ...); None for the recipe's choice.

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
        return network.eval().requires_grad_(False)

    def denoiser(self, use: str | None = None, device: torch.device | str = "cpu") -> Preconditioned:
        """Return the trained denoiser.

        Arguments:
            use: Which average of the weights; None for the recipe's choice.
            device: Where to put it.

        Raises:
            RecipeError: If that average was not kept, or the run trained a classifier.
        """
        self._must_train("denoiser", "It guides another run: sample that one with sample.classifier=" + str(self.path))
        return build_denoiser(self.recipe, self.network(use)).to(device)

    def classifier(self, use: str | None = None, device: torch.device | str = "cpu") -> NoisyClassifier:
        """Return the trained classifier of noisy images. Arguments and errors as for `denoiser`."""
        self._must_train("classifier", "Train one with objective=classifier.")
        return build_classifier(self.recipe, self.network(use)).to(device)

    def _must_train(self, kind: str, remedy: str) -> None:
        if trains(self.recipe) != kind:
            raise RecipeError(f"{self.path} trained a {trains(self.recipe)}, not a {kind}. {remedy}")

    def source(
        self, *, use: str | None = None, device: torch.device | str = "cpu", denoiser: Denoiser | None = None
    ) -> Diffusion:
        """Return the run as an image source, sampled and guided as its recipe says.

        Arguments:
            use: Which average of the weights.
            device: Where to compute.
            denoiser: A denoiser to use in place of the run's own (for counting, say); not guided yet.

        Raises:
            RecipeError: If the run trained a classifier, or the guidance does not fit the model, data or grid.
        """
        recipe, shape = self.recipe, self.recipe.shape
        if shape is None:
            raise RecipeError(f"The recipe of {self.path} is not resolved; it was not written by a run.")
        guided = denoiser or self.denoiser(use, device)
        check_sampling(recipe)
        sample = recipe.sample
        if sample.guidance != 1.0:
            guided = find("guidance", "cfg")(guided, sample.guidance, sample.interval or (0.0, math.inf))
        sampler = build_sampler(recipe)
        if sample.classifier is not None:
            guided, sampler = self._by_classifier(guided, sample.classifier, device)
        return Diffusion(
            guided,
            sampler,
            build_grid(recipe),
            (shape.channels, shape.height, shape.width),
            classes=len(self.classes),
            batch=sample.batch,
            device=device,
        )

    def _by_classifier(
        self, denoiser: Denoiser, folder: str, device: torch.device | str
    ) -> tuple[Denoiser, Callable[..., Any]]:
        """Return denoiser and sampler guided by a classifier: ADM's algorithm 1 where the sampler shifts, else 2.

        Algorithm 2 adds to an x0 that is clipped already and not clipped again.
        """
        logits, sample = Run.open(folder).classifier(device=device), self.recipe.sample
        if not self.recipe.data.labels:
            denoiser = _unlabelled(denoiser)
        if asks(sample.sampler, "shift"):
            shift = gradient(logits, sample.classifier_scale)
            return denoiser, build_sampler(self.recipe, shift=shift)
        clip = option(sample.sampler, "clip")
        if clip:
            denoiser = find("guidance", "threshold")(denoiser, float(clip))
            unclipped = replace(sample, sampler=sample.sampler.with_options(clip=False))
            sampler = build_sampler(replace(self.recipe, sample=unclipped))
        else:
            sampler = build_sampler(self.recipe)
        return find("guidance", "classifier")(denoiser, logits, sample.classifier_scale), sampler

    def with_recipe(self, recipe: Recipe) -> Run:
        """Return the run with another recipe: other sampling or evaluation settings for the same weights."""
        return Run(self.path, recipe, self.about)
