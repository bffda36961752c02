"""What a study costs before it is begun, counted and not guessed.

    trained    runs (and classifiers that guide) x training seeds x images of each
    sampled    rows x training seeds x n images, each (calls of the network per image) times
    FLOP       2 MAC per image and call; an image in training costs three (forward once, backward twice)

Calls are counted by walking each row's grid once with a stand-in for the network: a guided step counts twice, Heun's
step twice but the last once. The time is the FLOP over the speed of one forward pass, measured at once; a run whose
budget is in minutes counts as those minutes; judging the
images (features, floors, neighbours) comes on top.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sfumato.core.denoiser import Prediction
from sfumato.core.level import Level
from sfumato.experiments.study import Study
from sfumato.runs.assemble import build_denoiser, build_network, trains
from sfumato.runs.costs import RecipeCost, recipe_cost
from sfumato.runs.recipe import Data, Recipe, Shape
from sfumato.runs.run import Run, load_data, resolve

PASSES, LARGEST, ENOUGH = 3, 64, 20.0  # passes that measure the speed, their images at most, GFLOP that are enough


@dataclass(frozen=True)
class Estimate:
    """What a study costs.

    Attributes:
        runs: Trained runs, over all training seeds.
        trained: Images seen in training, over all of them.
        judged: Rows to judge, over all training seeds.
        sampled: Number of generated images.
        calls: Images times network calls each.
        gflop: 1e9 floating-point operations of both.
        speed: GFLOP a second of a forward pass here.
        parameters: Number of weights of each run's network.
        nfe: Network calls for an image of each row.
        clocked: Minutes of training of the runs whose budget is in minutes.
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
    clocked: float = 0.0

    @property
    def training(self) -> str:
        """What is trained, in words: images, or minutes, or both.

        >>> Estimate(2, 0, 2, 200, 400, 1.0, 1.0, {}, {}, clocked=8.0).training
        '8 minutes of training'
        """
        images, minutes = f"{self.trained:,} training images", f"{self.clocked:g} minutes of training"
        return " and ".join([images] * (self.trained > 0 or not self.clocked) + [minutes] * (self.clocked > 0))

    def __str__(self) -> str:
        minutes = self.gflop / self.speed / 60
        return (
            f"{self.runs} run{'s' * (self.runs > 1)}, {self.training}; "
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
        recipe: A resolved recipe.
    """
    if trains(recipe) == "generator":
        return 1
    blank = Blank(recipe.variance)
    source = Run(Path(), recipe, {}).diffusion(denoiser=blank, weak=blank)
    for _ in source.states([0], torch.zeros(1, dtype=torch.int64) if source.classes else None):
        pass
    return blank.images


def estimate(study: Study, root: Path | str | None = None) -> Estimate:
    """Count what a study costs; a row that cannot be sampled is refused here, before anything is trained.

    Arguments:
        study: Study at its scale.
        root: Data root; None for SFUMATO_DATA or the cache.

    Raises:
        ValueError: As training or sampling would, for parts that do not fit.
    """
    shapes: dict[Data, Shape | None] = {}
    resolved: dict[str, Recipe] = {}
    for name, recipe in {**study.runs, **study.guides}.items():
        shape = recipe.shape or shapes.get(recipe.data)
        if shape is None:
            shape = shapes[recipe.data] = resolve(recipe, load_data(recipe, "train", root)).shape
        resolved[name] = replace(recipe, shape=shape, sigma_data=recipe.sigma_data or 0.5)  # its value costs nothing
    found: dict[str, RecipeCost] = {name: recipe_cost(recipe) for name, recipe in resolved.items()}
    parameters = {name: cost.parameters for name, cost in found.items()}
    timed = [recipe for kind in PASS for recipe in resolved.values() if trains(recipe) == kind]
    fastest, trained_gflop = speed(timed[0]) if timed else 1.0, 0.0
    for name, cost in found.items():
        train = resolved[name].train
        trained_gflop += cost.training * train.images if train.minutes is None else 60 * fastest * train.minutes
    nfe: dict[str, int] = {}
    sampled_gflop = 0.0
    for row in study.rows:
        if row.untrained:
            nfe[row.name] = 0
            continue
        recipe = row.sampled(resolved[row.trained])
        nfe[row.name] = calls(recipe)
        sampled_gflop += nfe[row.name] * study.n * recipe_cost(recipe).network.gflop
    seeds = len(study.seeds)
    with_runs = [row for row in study.rows if not row.untrained]
    return Estimate(
        runs=len(resolved) * seeds,
        trained=sum(r.train.images for r in resolved.values() if r.train.minutes is None) * seeds,
        judged=len(study.rows) * seeds,
        sampled=len(with_runs) * study.n * seeds,
        calls=sum(nfe.values()) * study.n * seeds,
        gflop=(trained_gflop + sampled_gflop) * seeds,
        speed=fastest,
        parameters=parameters,
        nfe=nfe,
        clocked=sum(r.train.minutes or 0.0 for r in resolved.values()) * seeds,
    )


def speed(recipe: Recipe) -> float:
    """Return the GFLOP a second that a recipe's network reaches in a forward pass on the CPU; the best of a few.

    Arguments:
        recipe: A resolved recipe.
    """
    each = recipe_cost(recipe).network.gflop
    batch = max(1, min(LARGEST, int(ENOUGH / each)))
    ask = PASS[trains(recipe)](recipe, build_network(recipe).eval(), batch)
    best = float("inf")
    with torch.no_grad():
        for _ in range(PASSES):
            began = time.monotonic()
            ask()
            best = min(best, time.monotonic() - began)
    return batch * each / best


def _denoise(recipe: Recipe, network: nn.Module, batch: int) -> Callable[[], object]:
    denoiser = build_denoiser(recipe, network)
    level = denoiser.snap(Level.of(0.6, 0.8))
    shape = recipe.shape or Shape(1, 1, 1)
    x = torch.zeros(batch, shape.channels, shape.height, shape.width)
    return lambda: denoiser(x, level)


def _generate(recipe: Recipe, network: nn.Module, batch: int) -> Callable[[], object]:
    z = network.latents(range(batch))  # type: ignore[operator]
    return lambda: network(z, None)


PASS = {"denoiser": _denoise, "generator": _generate}
