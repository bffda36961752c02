"""What a study costs before it is begun, counted and not guessed.

    trained    runs (and classifiers that guide) x training seeds x images of each
    sampled    rows x training seeds x n images, each (calls of the network per image) times
    FLOP       2 MAC per image and call; an image in training costs three (forward once, backward twice)

Calls are counted by walking each row's grid once with a stand-in for the network: a guided step counts twice, Heun's
step twice but the last once. The time is the FLOP over what a training step and a forward pass of the study's first
network reach, measured at once on the CPU; a run whose budget is in minutes counts as those minutes; judging the images
(features, floors, neighbours) comes on top.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sfumato.data.dataset import Dataset
from sfumato.experiments.study import Study
from sfumato.runs.check import check_sampling
from sfumato.runs.guided import sampling_cost
from sfumato.runs.override import override
from sfumato.runs.plan import Plan
from sfumato.runs.plan import plan as make_plan
from sfumato.runs.recipe import Data, Recipe, Shape
from sfumato.runs.resolve import load_data, resolve
from sfumato.training.trainers import trainer_of

PASSES, LARGEST, ENOUGH = 3, 64, 20.0  # passes that measure the speed, their images at most, GFLOP that are enough
# Weights of a network whose training is begun to measure it; a step of a larger one counts as three passes.
LIGHT = 50e6


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
        trained_gflop: 1e9 operations of the training that is counted in images.
        training_speed: GFLOP a second of a training step here.
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
    trained_gflop: float = 0.0
    training_speed: float = 1.0

    def of_seeds(self, seeds: int, before: int) -> Estimate:
        """Return what as many training seeds cost, by what `before` of them do.

        >>> Estimate(2, 600, 2, 200, 400, 1.0, 1.0, {}, {}).of_seeds(3, before=1).trained
        1800
        """
        counts = {n: getattr(self, n) * seeds // before for n in ("runs", "trained", "judged", "sampled", "calls")}
        shares = {n: getattr(self, n) * seeds / before for n in ("gflop", "clocked", "trained_gflop")}
        return replace(self, **counts, **shares)

    @property
    def training(self) -> str:
        """What is trained, in words: images, or minutes, or both.

        >>> Estimate(2, 0, 2, 200, 400, 1.0, 1.0, {}, {}, clocked=8.0).training
        '8 minutes of training'
        """
        images, minutes = f"{self.trained:,} training images", f"{self.clocked:g} minutes of training"
        return " and ".join([images] * (self.trained > 0 or not self.clocked) + [minutes] * (self.clocked > 0))

    @property
    def minutes(self) -> float:
        """Expected minutes of training and sampling on this CPU."""
        sampling = self.gflop - self.trained_gflop - 60 * self.speed * self.clocked
        return self.trained_gflop / self.training_speed / 60 + self.clocked + sampling / self.speed / 60

    def __str__(self) -> str:
        return (
            f"{self.runs} run{'s' * (self.runs > 1)}, {self.training}; "
            f"sampling {self.judged} row{'s' * (self.judged > 1)}, {self.sampled:,} images x NFE = "
            f"{self.calls:,} network calls; {self.gflop / 1e3:.3g} TFLOP, about {self.minutes:.2g} minutes "
            f"at the {self.training_speed:.3g} GFLOP/s of a training step and {self.speed:.3g} of a call that "
            "this CPU reaches just now, and the judging"
        )


def estimate(study: Study, root: Path | str | None = None) -> Estimate:
    """Count what a study costs; a row that cannot be sampled is refused here, before anything is trained.

    Arguments:
        study: Study at its scale.
        root: Data root; None for SFUMATO_DATA or the cache.

    Raises:
        ValueError: As training or sampling would, for parts that do not fit.
    """
    shapes: dict[Data, Shape | None] = {}
    loaded: dict[Data, Dataset] = {}
    resolved: dict[str, Recipe] = {}
    for name, recipe in {**study.runs, **study.guides}.items():
        shape = recipe.shape or shapes.get(recipe.data)
        if shape is None:
            loaded[recipe.data] = load_data(recipe, "train", root)
            shape = shapes[recipe.data] = resolve(recipe, loaded[recipe.data]).shape
        resolved[name] = replace(recipe, shape=shape)
    plans = {name: make_plan(recipe) for name, recipe in resolved.items()}
    parameters = {name: made.cost.parameters for name, made in plans.items()}
    timed = sorted((made for made in plans.values() if made.kind.forward), key=lambda made: not made.kind.walks)
    fastest = speed(timed[0]) if timed else 1.0
    training = training_speed(timed[0], loaded.get(timed[0].recipe.data)) if timed else None
    trained_gflop, clocked = 0.0, 0.0
    for made in plans.values():
        train = made.recipe.train
        trained_gflop += made.cost.training * train.images if train.minutes is None else 0.0
        clocked += train.minutes or 0.0
    nfe: dict[str, int] = {}
    sampled_gflop = 0.0
    for row in study.rows:
        if row.untrained:
            nfe[row.name] = 0
            continue
        sampled = make_plan(row.sampled(resolved[row.trained]))
        if sampled.kind.walks:
            check_sampling(sampled)
        nfe[row.name] = sampling_cost(sampled)[1]
        sampled_gflop += nfe[row.name] * study.n * sampled.cost.network.gflop
    seeds = len(study.seeds)
    with_runs = [row for row in study.rows if not row.untrained]
    return Estimate(
        runs=len(resolved) * seeds,
        trained=sum(r.train.images for r in resolved.values() if r.train.minutes is None) * seeds,
        judged=len(study.rows) * seeds,
        sampled=len(with_runs) * study.n * seeds,
        calls=sum(nfe.values()) * study.n * seeds,
        gflop=(trained_gflop + 60 * fastest * clocked + sampled_gflop) * seeds,
        speed=fastest,
        parameters=parameters,
        nfe=nfe,
        clocked=clocked * seeds,
        trained_gflop=trained_gflop * seeds,
        training_speed=training or fastest,
    )


def speed(plan: Plan) -> float:
    """Return the GFLOP a second that a recipe's network reaches in a forward pass on the CPU; the best of a few.

    Arguments:
        plan: The plan of a recipe with its shape, whose kind is timed.
    """
    each = plan.cost.network.gflop
    batch = max(1, min(LARGEST, int(ENOUGH / each)))
    known = plan.resolved(replace(plan.recipe, sigma_data=plan.sigma_data))  # its value costs nothing
    assert known.kind.forward is not None
    ask = known.kind.forward(known.model(known.build_network().eval()), known.walked, batch)
    best = float("inf")
    with torch.no_grad():
        for _ in range(PASSES):
            began = time.monotonic()
            ask()
            best = min(best, time.monotonic() - began)
    return batch * each / best


def training_speed(plan: Plan, data: Dataset | None) -> float | None:
    """Return the GFLOP a second that the training steps of a recipe reach on the CPU, the best of a few.

    Arguments:
        plan: The plan of a recipe with its shape.
        data: Its training images; None where they are not at hand.

    Returns:
        None for a recipe whose training needs more than images, and for a network too large to be tried.
    """
    recipe = plan.recipe
    if data is None or recipe.data.latent or recipe.train.start or plan.cost.parameters > LIGHT:
        return None
    batch = min(recipe.train.batch, max(2, int(ENOUGH / plan.cost.training)))  # BatchNorm needs two
    tried = override(recipe, [f"train.batch={batch}", "train.micro=none", "train.compile=off"])
    trainer = trainer_of(make_plan(resolve(tried, data)), data, torch.device("cpu"))
    best = float("inf")
    for _ in range(PASSES):
        began = time.monotonic()
        trainer.advance(0.0)
        best = min(best, time.monotonic() - began)
    return batch * plan.cost.training / best
