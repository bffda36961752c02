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
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sfumato.experiments.study import Study
from sfumato.runs.check import check_sampling
from sfumato.runs.guided import sampling_cost
from sfumato.runs.plan import Plan, plan
from sfumato.runs.recipe import Data, Recipe, Shape
from sfumato.runs.resolve import load_data, resolve

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
        resolved[name] = replace(recipe, shape=shape)
    plans = {name: plan(recipe) for name, recipe in resolved.items()}
    parameters = {name: made.cost.parameters for name, made in plans.items()}
    timed = sorted((made for made in plans.values() if made.kind.forward), key=lambda made: not made.kind.walks)
    fastest, trained_gflop = speed(timed[0]) if timed else 1.0, 0.0
    for made in plans.values():
        train = made.recipe.train
        trained_gflop += made.cost.training * train.images if train.minutes is None else 60 * fastest * train.minutes
    nfe: dict[str, int] = {}
    sampled_gflop = 0.0
    for row in study.rows:
        if row.untrained:
            nfe[row.name] = 0
            continue
        sampled = plan(row.sampled(resolved[row.trained]))
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
        gflop=(trained_gflop + sampled_gflop) * seeds,
        speed=fastest,
        parameters=parameters,
        nfe=nfe,
        clocked=sum(r.train.minutes or 0.0 for r in resolved.values()) * seeds,
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
