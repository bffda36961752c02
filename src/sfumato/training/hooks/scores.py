"""Scores while training: every so many images, a quick Frechet distance of the averaged weights; the best are kept.

A quick score makes `evaluate.quick` images of fixed seeds, so that scores of one run differ by the weights alone, and
judges them against the whole test split by the recipe's extractor. Records go to RUN/scores.jsonl. The best weights so
far are kept as a run of their own, RUN/best, which every command takes; the newest checkpoint stays beside it. Being
the best of several by a score is a choice, and the score of what was chosen by it is biased low: RUN/best says by what
it was selected, and evaluating it against the same reference marks the score.

Numbers of one protocol and of images made alike are compared, and no others. Where a run goes on under another protocol
(another extractor, say) or with other settings of sampling, the best of before is kept as RUN/best-PROTOCOL-SETTINGS,
and comes back when they do.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from typing import Any

from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import StoppedError
from sfumato.core.images import NonFiniteError
from sfumato.core.reading import plain_name
from sfumato.core.writing import replace_json
from sfumato.evaluation.judge import Judge
from sfumato.metrics.protocol import canonical
from sfumato.metrics.rules import SelfComparisonError
from sfumato.processes.dealing import images_of_all
from sfumato.processes.machine import describe
from sfumato.progress import say
from sfumato.runs import checkpoint
from sfumato.runs.guided import sampling_cost
from sfumato.runs.labelled import keep
from sfumato.runs.part import explained
from sfumato.runs.recipe import Recipe, RecipeError
from sfumato.runs.records import append_record, trim_records
from sfumato.runs.run import Run
from sfumato.training.hooks.due import Hook, RunContext, StepTaken
from sfumato.training.hooks.live import live_source
from sfumato.training.steps import Steps

METRIC = "fd"
SHARE = 0.02  # of a budget of minutes: what a score takes at most


def settings(recipe: Recipe) -> str:
    """Return a hash of how scored images are made of a run's weights: sampling, the average, the precision."""
    sample = {name: value for name, value in recipe.to_json()["sample"].items() if name != "batch"}
    facts = [sample, recipe.ema.use, recipe.train.precision]
    return hashlib.sha256(canonical(facts).encode()).hexdigest()[:8]


def hook(trainer: Steps, context: RunContext) -> Hook | None:
    """Return what scores a run while it trains; None if it is not asked to.

    Raises:
        RecipeError: If the run trains no denoiser, or too few images are asked for.
    """
    every = trainer.recipe.train.evaluate_every
    if every is None:
        return None
    if not trainer.plan.kind.draws:
        raise RecipeError(
            f"train.evaluate_every={every} scores images, and objective={trainer.recipe.objective.name} makes "
            "none. Set train.evaluate_every=none."
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
        with explained(f"train.evaluate_every={every} with evaluate.quick={recipe.evaluate.quick}"):
            self.judge.check(METRIC, recipe.evaluate.quick)
        self.quick, self.calls = recipe.evaluate.quick, sampling_cost(trainer.plan)[1]
        self.told = False
        self.file = context.folder / "scores.jsonl"
        kept: list[dict[str, Any]] = []
        if trainer.ranks.first:
            open(self.file, "a").close()
            kept = trim_records(self.file, trainer.step, ("step", "images", "value"))
        self.settings = settings(recipe)
        usual: dict[str, Any] = {"settings": self.settings, "best": False}  # an earlier version's do not tell them
        whole = [usual | r for r in kept if isinstance(r.get("protocol"), str) and math.isfinite(r["value"])]
        self.records = trainer.ranks.from_first(whole)
        kept = trainer.ranks.from_first(kept)
        self.scored = {record["step"] for record in kept}

    def __call__(self, trainer: Steps, taken: StepTaken) -> None:
        due = taken.passed(self.every) and not (taken.leaving or taken.hurried)
        if not due and not (taken.finished and trainer.step not in self.scored):
            return
        began = time.monotonic()
        recipe, use = trainer.recipe, trainer.recipe.ema.use
        n = self._count(trainer, taken)
        if n is None:
            return
        labels, prior = Run(self.context.folder, recipe, {}).labels(n, self.judge.real)
        try:
            source = live_source(trainer, self.context, use, taken.stop)
            images = images_of_all(trainer.ranks, source, range(n), labels)
        except (NonFiniteError, checkpoint.CheckpointError, StoppedError) as error:
            if trainer.ranks.first:
                say(f"No score at {trainer.seen:,} images: {error}")
            return
        better, record = trainer.ranks.from_first(self._judge(trainer, images, (labels, prior), began))
        self.scored.add(trainer.step)
        if better:
            self._keep(trainer, record)
        if record and trainer.ranks.first:  # after what it says is the best is kept: a killed run scores again
            append_record(self.file, record)
            for tracker in self.context.trackers:
                tracker.score(record)

    def _count(self, trainer: Steps, taken: StepTaken) -> int | None:
        """Return the images of a score, the same for all of a run: fewer where minutes are short, None for too few.

        One call of the network for an image costs a third of training with it.
        """
        minutes = trainer.recipe.train.minutes
        if minutes is None or not taken.pace:
            return self.quick
        if self.records:
            return min(self.quick, int(self.records[-1]["n"]))
        (longest,) = trainer.ranks.largest(self.calls * taken.pace / 3)
        n = min(self.quick, int(SHARE * 60 * minutes / longest))
        try:
            self.judge.check(METRIC, n)
        except ValueError:
            n = 0
        if n < self.quick and not self.told and trainer.ranks.first:
            made = f"has {n} images" if n else "is not made: `sfumato evaluate` makes it afterwards"
            say(f"A score of {self.quick} images would take more than {SHARE:.0%} of the minutes, so it {made}.")
        self.told = True
        return n or None

    def _judge(
        self, trainer: Steps, images: Tensor, asked: tuple[Label | None, str], began: float
    ) -> tuple[bool, dict[str, Any]]:
        """Score images on the first rank; return whether it is the best, and the record."""
        if not trainer.ranks.first:
            return False, {}
        use, n = trainer.recipe.ema.use, len(images)
        try:
            score = self.judge.score(METRIC, self.judge.seen(images, (METRIC,), *asked), floor=False)
        except SelfComparisonError as error:
            say(f"No score at {trainer.seen:,} images: {error}")
            return False, {}
        protocol = score.protocol.protocol_id
        self._settle(protocol)
        before = [record["value"] for record in self.records if self._alike(record, protocol)]
        better = score.value < min(before, default=math.inf)
        record = {
            "step": trainer.step,
            "images": trainer.seen,
            "name": score.name,
            "value": score.value,
            "interval": list(score.interval),
            "n": score.n,
            "m": score.m,
            "protocol": protocol,
            "settings": self.settings,
            "weights": use,
            "best": better,
            "seconds": round(time.monotonic() - began, 2),
        }
        self.records.append(record)
        say(
            f"{trainer.seen:,} images: {score.name} {score.value:.3f} [{score.interval[0]:.3f}, "
            f"{score.interval[1]:.3f}], n = {n}{', the best so far' if better and before else ''}"
        )
        return better, record

    def _alike(self, record: dict[str, Any], protocol: str) -> bool:
        """Whether a score may be compared with those of today."""
        return (record["protocol"], record["settings"]) == (protocol, self.settings)

    def _settle(self, protocol: str) -> None:
        """Let RUN/best be the best of scores that are alike; that of others is kept beside it, under their name."""
        best = self.context.folder / "best"
        if (best / "recipe.json").exists():
            opened = Run.open(best)
            chosen = {"settings": settings(opened.recipe), **opened.about.get("selected", {})}
            by_images = {record["images"]: record["protocol"] for record in self.records if record["best"]}
            held = {"protocol": by_images.get(chosen.get("images"), protocol), **chosen}
            if self._alike(held, protocol):
                return
            name = f"best-{held['protocol']}-{held['settings']}"
            name = name if plain_name(name) else "best-unknown"
            say(f"Scores are of another protocol or sampling from here on: {best} is kept as {name}.")
            best.rename(best.with_name(name))
        for name in (f"best-{protocol}-{self.settings}", f"best-{protocol}"):  # the second is an earlier version's
            if not best.exists() and (earlier := best.with_name(name)).exists():
                earlier.rename(best)

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
            "protocol": record["protocol"],
            "settings": self.settings,
            "candidates": sum(self._alike(other, record["protocol"]) for other in self.records),
            "reference": self.judge.identity,
        }
        network = dict(trainer.network.state_dict())
        tensors = trainer.averages.held.gathered({"network": network, **trainer.averages.tensors()})
        if not trainer.ranks.first:
            return
        if wrong := checkpoint.not_finite(tensors):
            say(f"The weights at {trainer.seen:,} images are not kept as the best: {wrong} is not finite.")
            return
        state = trainer.state() | {"selected": selected}
        checkpoint.save(folder, trainer.step, tensors, state, fingerprint=self.context.fingerprint)
        about = {"fingerprint": self.context.fingerprint, "machine": describe(trainer.device), "selected": selected}
        keep(trainer.recipe, best)
        replace_json(best / "recipe.json", {"recipe": trainer.recipe.to_json(), **about})
        for step in checkpoint.steps(folder):
            if step != trainer.step:
                shutil.rmtree(folder / f"step-{step}")
