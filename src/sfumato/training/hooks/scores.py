"""Scores while training: every so many images, a quick Frechet distance of the averaged weights; the best are kept.

A quick score makes `evaluate.quick` images of fixed seeds, so that scores of one run differ by the weights alone, and
judges them against the whole test split by the recipe's extractor. Records go to RUN/scores.jsonl. The best weights so
far are kept as a run of their own, RUN/best, which every command takes; the newest checkpoint stays beside it. Being
the best of several by a score is a choice, and the score of what was chosen by it is biased low: RUN/best says by what
it was selected, and evaluating it against the same reference marks the score.
"""

from __future__ import annotations

import json
import shutil
import time
from typing import Any

from torch import Tensor
from tqdm import tqdm

from sfumato.core.images import NonFiniteError
from sfumato.evaluation.judge import Judge
from sfumato.metrics.rules import SelfComparisonError
from sfumato.processes.dealing import images_of_all
from sfumato.processes.machine import describe
from sfumato.runs import checkpoint
from sfumato.runs.kinds import kind_of
from sfumato.runs.recipe import RecipeError
from sfumato.runs.run import Run
from sfumato.sources import balanced_labels
from sfumato.training.hooks.due import Hook, RunContext, StepTaken
from sfumato.training.steps import Steps

METRIC = "fd"


def hook(trainer: Steps, context: RunContext) -> Hook | None:
    """Return what scores a run while it trains; None if it is not asked to.

    Raises:
        RecipeError: If the run trains no denoiser, or too few images are asked for.
    """
    every = trainer.recipe.train.evaluate_every
    if every is None:
        return None
    if not kind_of(trainer.recipe).draws:
        raise RecipeError(
            f"train.evaluate_every={every} scores images, and objective={trainer.recipe.objective.name} makes "
            "none. Set train.evaluate_every=none."
        )
    if every < 1 or trainer.recipe.evaluate.quick < 2:
        raise RecipeError(
            f"train.evaluate_every and evaluate.quick must be at least 1 and 2; got {every} and "
            f"{trainer.recipe.evaluate.quick}. About 500 images show the trend."
        )
    return Scoring(trainer, context, every)


class Scoring:
    """Score the averaged weights when they are due, and keep the best.

    Arguments:
        trainer: At the start of the run or where it resumes.
        context: Directory and watchers of the run.
        every: Images between scores.
    """

    def __init__(self, trainer: Steps, context: RunContext, every: int) -> None:
        self.context, self.every = context, every
        recipe = trainer.recipe
        with trainer.ranks.in_turn():
            self.judge = Judge.of(recipe, root=context.root)
        self.judge.check(METRIC, recipe.evaluate.quick)
        self.file = context.folder / "scores.jsonl"
        kept: list[dict[str, Any]] = []
        if trainer.ranks.first and self.file.exists():
            lines = [line for line in self.file.read_text().splitlines(keepends=True) if line.endswith("\n")]
            kept = [record for record in map(json.loads, lines) if record["step"] <= trainer.step]
        if trainer.ranks.first:
            self.file.write_text("".join(json.dumps(record) + "\n" for record in kept))
        kept = trainer.ranks.from_first(kept)
        self.best: float | None = min((record["value"] for record in kept), default=None)
        self.scored = {record["step"] for record in kept}

    def __call__(self, trainer: Steps, taken: StepTaken) -> None:
        due = taken.passed(self.every) and not (taken.leaving or taken.hurried)
        if not due and not (taken.finished and trainer.step not in self.scored):
            return
        began = time.monotonic()
        recipe, use = trainer.recipe, trainer.recipe.ema.use
        network = trainer.averages.network(trainer.network, use)
        run = Run(self.context.folder, recipe, {})
        source = run.source(device=trainer.device, network=network)
        n = recipe.evaluate.quick
        labels = balanced_labels(n, len(run.classes))
        try:
            images = images_of_all(trainer.ranks, source, range(n), labels)
        except NonFiniteError as error:
            if trainer.ranks.first:
                tqdm.write(f"No score at {trainer.seen:,} images: {error}")
            return
        better, record = trainer.ranks.from_first(self._judge(trainer, images, labels, began))
        self.scored.add(trainer.step)
        if better:
            self.best = record["value"]
            self._keep(trainer, record)

    def _judge(
        self, trainer: Steps, images: Tensor, labels: Tensor | None, began: float
    ) -> tuple[bool, dict[str, Any]]:
        """Score images on the first rank, and record it; return whether it is the best, and the record."""
        if not trainer.ranks.first:
            return False, {}
        use, n = trainer.recipe.ema.use, len(images)
        try:
            score = self.judge.score(METRIC, self.judge.seen(images, (METRIC,), labels), floor=False)
        except SelfComparisonError as error:
            tqdm.write(f"No score at {trainer.seen:,} images: {error}")
            return False, {}
        better = self.best is None or score.value < self.best
        record = {
            "step": trainer.step,
            "images": trainer.seen,
            "name": score.name,
            "value": score.value,
            "interval": list(score.interval),
            "n": score.n,
            "m": score.m,
            "protocol": score.protocol.protocol_id,
            "weights": use,
            "best": better,
            "seconds": round(time.monotonic() - began, 2),
        }
        with open(self.file, "a") as file:
            file.write(json.dumps(record) + "\n")
        for tracker in self.context.trackers:
            tracker.score(record)
        tqdm.write(
            f"{trainer.seen:,} images: {score.name} {score.value:.3f} [{score.interval[0]:.3f}, "
            f"{score.interval[1]:.3f}], n = {n}{', the best so far' if better and self.scored else ''}"
        )
        return better, record

    def _keep(self, trainer: Steps, record: dict[str, Any]) -> None:
        """Write the weights as a run of their own and drop the ones that were the best before."""
        best = self.context.folder / "best"
        folder = best / "checkpoints"
        selected = {
            "what": "checkpoint",
            "by": record["name"],
            "n": record["n"],
            "value": record["value"],
            "images": record["images"],
            "candidates": len(self.scored),
            "reference": self.judge.identity,
        }
        network = dict(trainer.network.state_dict())
        tensors = trainer.averages.held.gathered({"network": network, **trainer.averages.tensors()})
        if not trainer.ranks.first:
            return
        state = {
            "seen": trainer.seen,
            "step": trainer.step,
            "elapsed": trainer.elapsed,
            "skipped": trainer.watch.total,
            "recipe": trainer.recipe.to_json(),
            "selected": selected,
        }
        checkpoint.save(folder, trainer.step, tensors, state, fingerprint=self.context.fingerprint)
        about = {"fingerprint": self.context.fingerprint, "machine": describe(trainer.device), "selected": selected}
        checkpoint.replace_json(best / "recipe.json", {"recipe": trainer.recipe.to_json(), **about})
        for step in checkpoint.steps(folder):
            if step != trainer.step:
                shutil.rmtree(folder / f"step-{step}")
