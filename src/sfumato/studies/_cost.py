"""What a study costs before it is begun, counted and not guessed.

    trained    runs x training seeds x images of each
    sampled    rows x training seeds x n images, each (calls of the network per image) times
    FLOP       2 MAC per image and call; an image in training costs three (forward once, backward twice)

Calls are counted by walking each row's grid once with a stand-in for the network: a guided step counts twice, Heun's
step twice but the last once. The time is the FLOP over the speed of one forward pass, measured at once; judging the
images (features, floors, neighbours) comes on top.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sfumato.core.denoiser import Prediction
from sfumato.core.level import Level
from sfumato.networks._report import cost as network_cost
from sfumato.studies._study import Row, Study, StudyError
from sfumato.training.assemble import build_denoiser, build_network
from sfumato.training.recipe import Data, Recipe, Shape, override
from sfumato.training.run import Run, load_data, resolve

PASSES, LARGEST, ENOUGH = 3, 64, 20.0  # passes that measure the speed, their images at most, GFLOP that are enough


@dataclass(frozen=True)
class Estimate:
    """What a study costs.

    Attributes:
        runs: Trained runs, over all training seeds.
        trained: Images seen in training, over all of them.
        judged: Rows to judge, over all training seeds.
        sampled: Generated images.
        calls: Images times network calls each.
        gflop: 1e9 floating-point operations of both.
        speed: GFLOP a second of a forward pass here.
        parameters: Of each run's network.
        nfe: Network calls an image of each row.
    """

    runs: int
    trained: int
    judged: int
    sampled: int
    calls: int
    gflop: float
    speed: float
    parameters: dict[str, int]
    nfe: dict[str, int]

    def __str__(self) -> str:
        minutes = self.gflop / self.speed / 60
        return (
            f"training {self.runs} run{'s' * (self.runs > 1)}, {self.trained:,} images; "
            f"sampling {self.judged} row{'s' * (self.judged > 1)}, {self.sampled:,} images x NFE = "
            f"{self.calls:,} network calls; {self.gflop / 1e3:.3g} TFLOP, about {minutes:.2g} minutes at the "
            f"{self.speed:.3g} GFLOP/s this machine reaches just now, and the judging"
        )


class Blank:
    """A denoiser that sees grey everywhere and counts the images it was asked about."""

    def __init__(self, variance: str) -> None:
        self.learned = variance != "none"
        self.images = 0

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        self.images += len(x)
        return Prediction(torch.zeros_like(x), torch.zeros_like(x) if self.learned else None)


def calls(recipe: Recipe) -> int:
    """Return how often the network is called for an image, by walking the recipe's grid.

    Arguments:
        recipe: Resolved.
    """
    blank = Blank(recipe.variance)
    source = Run(Path(), recipe, {}).source(denoiser=blank, weak=blank)
    for _ in source.states([0], torch.zeros(1, dtype=torch.int64) if source.classes else None):
        pass
    return blank.images


def as_sampled(row: Row, resolved: Recipe) -> Recipe:
    """Return the recipe by which a row is sampled and judged: the trained one with the row's settings.

    Arguments:
        row: Which.
        resolved: The recipe of its run, with shape and sigma_data.
    """
    return override(resolved, row.settings)


def estimate(study: Study, root: Path | str | None = None) -> Estimate:
    """Count what a study costs; a row that cannot be sampled is refused here, before anything is trained.

    Arguments:
        study: At its scale.
        root: Data root.

    Raises:
        ValueError: As training or sampling would, for parts that do not fit.
    """
    shapes: dict[Data, Shape | None] = {}
    resolved: dict[str, Recipe] = {}
    for name, recipe in study.runs.items():
        shape = recipe.shape or shapes.get(recipe.data)
        if shape is None:
            shape = shapes[recipe.data] = resolve(recipe, load_data(recipe, "train", root)).shape
        resolved[name] = replace(recipe, shape=shape, sigma_data=recipe.sigma_data or 0.5)  # its value costs nothing
    parameters, trained_gflop = {}, 0.0
    for name, recipe in resolved.items():
        found = _network_cost(recipe)
        parameters[name] = found[0]
        trained_gflop += 3 * found[1] * recipe.train.images
    nfe: dict[str, int] = {}
    sampled_gflop = 0.0
    for row in study.rows:
        recipe = as_sampled(row, resolved[row.trained])
        nfe[row.name] = calls(recipe)
        sampled_gflop += nfe[row.name] * study.n * _network_cost(recipe)[1]
    seeds = len(study.seeds)
    return Estimate(
        runs=len(resolved) * seeds,
        trained=sum(recipe.train.images for recipe in resolved.values()) * seeds,
        judged=len(study.rows) * seeds,
        sampled=len(study.rows) * study.n * seeds,
        calls=sum(nfe.values()) * study.n * seeds,
        gflop=(trained_gflop + sampled_gflop) * seeds,
        speed=speed(next(iter(resolved.values()))),
        parameters=parameters,
        nfe=nfe,
    )


def _image(recipe: Recipe) -> tuple[int, int, int]:
    """Return (C, H, W) of a resolved recipe's images."""
    if recipe.shape is None:
        raise StudyError(f"{recipe.name} has no image shape yet; resolve it with its data.")
    return recipe.shape.channels, recipe.shape.height, recipe.shape.width


def _network_cost(recipe: Recipe) -> tuple[int, float]:
    """Return (parameters, GFLOP per image and call) of a resolved recipe's network."""
    found = network_cost(build_network(recipe, "meta"), _image(recipe))
    return found.parameters, found.gflop


def speed(recipe: Recipe) -> float:
    """Return the GFLOP a second that a recipe's denoiser reaches in a forward pass on the CPU; the best of a few.

    Arguments:
        recipe: Resolved.
    """
    each = _network_cost(recipe)[1]
    batch = max(1, min(LARGEST, int(ENOUGH / each)))
    denoiser = build_denoiser(recipe, build_network(recipe).eval())
    x, level = torch.zeros(batch, *_image(recipe)), denoiser.snap(Level.of(0.6, 0.8))
    best = float("inf")
    with torch.no_grad():
        for _ in range(PASSES):
            began = time.monotonic()
            denoiser(x, level)
            best = min(best, time.monotonic() - began)
    return batch * each / best
