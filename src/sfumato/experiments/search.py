"""Search: train a recipe with many settings of some fields, briefly where they look bad, and keep the best.

Optuna's tree-structured Parzen estimator proposes settings. A trial is scored after a ninth and a third of its budget
and at its end, on the same seeds for all; at each of the first two it goes on if it is among the best third of all that
came as far (asynchronous successive halving). The score is that of generated images against *training* images, never
against the test images: the best of many is biased on what chose it, and what is reported must be told by others.

    FOLDER/search.json      what is searched; another search in the same folder is refused
    FOLDER/trials.jsonl     a line per finished trial: its fields, scores on the way, end and seconds
    FOLDER/NAME-searched.json    the best recipe, as `sfumato train` takes it; it says among how many it was chosen

A trial is a pure function of those before it and of the seed. A search that was killed in a trial begins it again, and
ends as one that was not.

References:
    Bergstra et al. Algorithms for Hyper-Parameter Optimization. 2011.
    Akiba et al. Optuna: A Next-generation Hyperparameter Optimization Framework. 2019.
        https://arxiv.org/abs/1907.10902
    Li et al. A System for Massively Parallel Hyperparameter Tuning. 2020, algorithm 2.
        https://arxiv.org/abs/1810.05934
"""

from __future__ import annotations

import json
import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sfumato.core.denoiser import StoppedError
from sfumato.core.find import OptionError
from sfumato.core.images import NonFiniteError
from sfumato.core.noise import words
from sfumato.core.optional import optional
from sfumato.core.reading import read_json
from sfumato.core.writing import replace_json
from sfumato.evaluation.judge import Judge, judged_by
from sfumato.experiments.search_space import Dimension
from sfumato.metrics.metric import find_metric
from sfumato.metrics.rules import SelfComparisonError
from sfumato.metrics.score import Score
from sfumato.runs import recipe as recipes
from sfumato.runs.lock import locked
from sfumato.runs.override import override
from sfumato.runs.recipe import Chosen, Recipe, RecipeError
from sfumato.runs.records import append_record, read_records
from sfumato.runs.run import Run
from sfumato.training.guard import Diverged
from sfumato.training.hooks.due import Hook, RunContext, StepTaken, go_on
from sfumato.training.hooks.live import live_source
from sfumato.training.loop import train
from sfumato.training.steps import Steps

REDUCTION = 3  # of trials that go on at a rung, and between the budgets of rungs
RUNGS = {1: 1 / REDUCTION**2, REDUCTION: 1 / REDUCTION}  # step of Optuna's pruner -> share of the budget; 9 is the end
QUIET = ("train.sheet_every=1000000000000", "train.save_every=1e9")  # of a trial, which leaves nothing but its numbers


@dataclass(frozen=True)
class Trial:
    """A setting that was tried.

    Attributes:
        values: What each field was, by its path.
        scores: Score after each rung and at the end, by the step of the pruner: 1, 3 and 9 ninths of the budget.
        interval: The last score's interval.
        end: "done", "stopped" at a rung, or why it failed.
        seconds: Time it took.
        rungs: What Optuna's pruner remembers of it.
    """

    values: Mapping[str, Any]
    scores: Mapping[int, float]
    interval: tuple[float, float]
    end: str
    seconds: float
    rungs: Mapping[str, float]

    @property
    def last(self) -> float:
        """The last score; NaN if there is none."""
        return self.scores[max(self.scores)] if self.scores else math.nan


@dataclass(frozen=True)
class Search:
    """What is searched, and by what.

    Attributes:
        recipe: What all trials share; its budget is that of a trial.
        space: Fields that differ between them.
        metric: Name of the score.
        n: Generated images of a score.
        split: Split of the real images: "train", or "val" where there is one.
        seed: Seed of the proposals.
        root: Data root; None for SFUMATO_DATA or the cache.
        device: None for the best at hand.
    """

    recipe: Recipe
    space: tuple[Dimension, ...]
    metric: str = "fd"
    n: int = 500
    split: str = "train"
    seed: int = 0
    root: Path | str | None = None
    device: torch.device | str | None = None

    def __post_init__(self) -> None:
        if self.split not in ("train", "val"):
            raise OptionError(f"A search is judged by training images, or by --split val; got {self.split}.")
        if find_metric(self.metric).better == "neither":
            raise OptionError(
                f"Neither more nor less of {self.metric} is better, so it chooses nothing. Take fd or kid."
            )
        if self.n < (least := find_metric(self.metric).least):
            raise OptionError(f"A score by {self.metric} needs at least {least} images; got n = {self.n}.")

    @property
    def direction(self) -> str:
        """Which way is good, in Optuna's words."""
        return "maximize" if find_metric(self.metric).better == "higher" else "minimize"

    def to_json(self) -> dict[str, Any]:
        """Return what decides the numbers."""
        space = {d.field: asdict(d) | {"values": list(d.values)} for d in self.space}
        facts = {"metric": self.metric, "n": self.n, "split": self.split, "seed": self.seed}
        return {"recipe": self.recipe.to_json(), "space": space, **facts}


def carry_out(
    search: Search,
    folder: Path,
    trials: int,
    minutes: float | None = None,
    told: Callable[[int, Trial], None] = lambda number, trial: None,
) -> list[Trial]:
    """Try settings until there are so many, going on with what the folder holds; return all trials.

    Arguments:
        search: What is searched.
        folder: Directory of the search.
        trials: Number of trials in all.
        minutes: After which no trial begins; None for no limit.
        told: Called with the number of every trial that ends, and the trial.

    Raises:
        RecipeError: If the folder holds another search.
        OptionError: If Optuna is not installed.
    """
    optuna()
    began = time.monotonic()
    with locked(folder):
        asked, file = search.to_json(), folder / "search.json"
        asked |= {"data": judged_by(search.recipe, search.split, search.root)}
        before = read_json(file) if file.exists() else asked
        known = before.get("data")  # an earlier version recorded less
        before = {**before, "data": {**asked["data"], **(known if isinstance(known, dict) else {})}}
        if changed := recipes.differences(before, json.loads(json.dumps(asked))):
            lines = "\n".join(f"  {path}: {old} -> {new}" for path, (old, new) in changed.items())
            raise RecipeError(f"{folder} holds another search:\n{lines}\nGive another --out.")
        replace_json(file, asked)
        done = _trials(search, folder / "trials.jsonl")
        while len(done) < trials and (minutes is None or time.monotonic() - began < 60 * minutes):
            done.append(_try(search, done, folder / "trial"))
            append_record(folder / "trials.jsonl", asdict(done[-1]))
            told(len(done), done[-1])
    return done


def best_of(search: Search, trials: Sequence[Trial]) -> Trial:
    """Return the best of the trials that were trained to the end.

    Raises:
        RecipeError: If there is none.
    """
    whole = [trial for trial in trials if trial.end == "done"]
    if not whole:
        ends = "; ".join(dict.fromkeys(trial.end.rstrip(".") for trial in trials)) or "no trial began"
        raise RecipeError(f"No trial was trained to the end: {ends}. Give more trials or minutes.")
    return (max if search.direction == "maximize" else min)(whole, key=lambda trial: trial.last)


def recipe_of(search: Search, trials: Sequence[Trial]) -> Recipe:
    """Return the recipe of the best trial, which says that it was chosen, by what and among how many."""
    found = _with(search, best_of(search, trials).values)
    judge = Judge.of(found, search.split, search.root)
    name = f"{find_metric(search.metric).name}[{judge.extract.name}]"
    chosen = Chosen(len(trials), name, search.n, search.split, judge.identity)
    return replace(found, name=f"{search.recipe.name}-searched", chosen=chosen)


def importances(search: Search, trials: Sequence[Trial]) -> dict[str, float]:
    """Return the share of each field in what tells good trials from all (PED-ANOVA); {} of too few trials."""
    if sum(trial.end == "done" for trial in trials) < 2:
        return {}
    lib = optuna()
    evaluator = lib.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    return dict(lib.importance.get_param_importances(_study(search, trials), evaluator=evaluator))


def optuna() -> Any:
    """Return the package Optuna, silenced."""
    lib = optional("optuna", "search", "sfumato search", OptionError)
    lib.logging.set_verbosity(lib.logging.ERROR)
    return lib


def _with(search: Search, values: Mapping[str, Any]) -> Recipe:
    return override(search.recipe, [d.assigned(values[d.field]) for d in search.space])


def _trials(search: Search, file: Path) -> list[Trial]:
    """Return the trials in a file; a line that holds none of this search costs that line."""
    trials = []
    for record in read_records(file, ("seconds",)):
        try:
            low, high = map(float, record["interval"])
            scores, rungs = ({key: float(v) for key, v in record[name].items()} for name in ("scores", "rungs"))
            by_step = {int(step): value for step, value in scores.items()}
            trial = Trial(dict(record["values"]), by_step, (low, high), str(record["end"]), record["seconds"], rungs)
            if trial.end == "done" and not math.isfinite(scores[str(REDUCTION**2)]):
                raise ValueError("no score at its end")
            if low > high or not trial.seconds >= 0:
                raise ValueError("an interval or a time that is none")
            _study(search, [trial])  # Optuna takes it
        except (LookupError, TypeError, ValueError, AttributeError):
            warnings.warn(f"{file} holds a line that is no trial of this search: left out.", stacklevel=2)
        else:
            trials.append(trial)
    return trials


def _distributions(search: Search) -> dict[str, Any]:
    kinds = optuna().distributions
    found: dict[str, Any] = {}
    for d in search.space:
        if d.values:
            found[d.field] = kinds.CategoricalDistribution(d.values)
        elif d.whole:
            found[d.field] = kinds.IntDistribution(int(d.low), int(d.high), log=d.log)
        else:
            found[d.field] = kinds.FloatDistribution(d.low, d.high, log=d.log)
    return found


def _study(search: Search, trials: Sequence[Trial]) -> Any:
    """Return Optuna's view of the trials so far, with a sampler whose next proposal follows from them and the seed."""
    lib = optuna()
    seed = int(words([len(trials)], 1, seed=search.seed, purpose="search")) % 2**32
    study = lib.create_study(
        direction=search.direction,
        sampler=lib.samplers.TPESampler(seed=seed),
        pruner=lib.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION),
    )
    states = {"done": lib.trial.TrialState.COMPLETE, "stopped": lib.trial.TrialState.PRUNED}
    for trial in trials:
        state = states.get(trial.end, lib.trial.TrialState.FAIL)
        study.add_trial(
            lib.trial.create_trial(
                state=state,
                value=trial.last if trial.end == "done" else None,
                params=dict(trial.values),
                distributions=_distributions(search),
                intermediate_values=dict(trial.scores),
                system_attrs=dict(trial.rungs),
            )
        )
    return study


class _Stopped(Exception):
    """A trial is not among the best at a rung."""


def _try(search: Search, done: Sequence[Trial], folder: Path) -> Trial:
    """Train and score the next setting."""
    study, began = _study(search, done), time.monotonic()
    asked = study.ask(fixed_distributions=_distributions(search))
    scores: dict[int, Score] = {}
    shutil.rmtree(folder, ignore_errors=True)  # of a trial that was killed
    end = "done"
    try:
        recipe = override(_with(search, asked.params), QUIET)
        watch = _watch(search, asked, scores)
        train(recipe, folder, root=search.root, device=search.device, quiet=True, watchers=(watch,))
    except _Stopped:
        end = "stopped"
    except (Diverged, NonFiniteError, SelfComparisonError, RecipeError, OptionError) as error:
        end = f"failed: {str(error).splitlines()[0]}"
    shutil.rmtree(folder, ignore_errors=True)
    rungs = {k: v for k, v in study.get_trials()[-1].system_attrs.items() if k.startswith("completed_rung")}
    interval = scores[max(scores)].interval if scores else (math.nan, math.nan)
    numbers = {step: score.value for step, score in scores.items()}
    return Trial(dict(asked.params), numbers, interval, end, round(time.monotonic() - began, 2), rungs)


def _watch(search: Search, asked: Any, scores: dict[int, Score]) -> Callable[[Steps, RunContext], Hook]:
    """Return the maker of a hook that scores a trial at each rung and at its end, and stops it where it is told to."""

    def make(trainer: Steps, context: RunContext) -> Hook:
        recipe = trainer.recipe
        judge = Judge.of(recipe, search.split, search.root)
        judge.check(search.metric, search.n)
        labels, prior = Run(context.folder, recipe, {}).labels(search.n, judge.real)

        def hook(trainer: Steps, taken: StepTaken) -> None:
            if taken.leaving:
                return
            due = [step for step, share in RUNGS.items() if taken.before < share <= taken.spent < 1]
            if not due and not taken.finished:
                return
            stop = taken.stop if recipe.train.minutes is None else go_on  # a score is not of the minutes of training
            try:
                images = live_source(trainer, context, recipe.ema.use, stop)(range(search.n), labels)
            except StoppedError:  # a signal: the loop saves and leaves
                return
            step = REDUCTION**2 if taken.finished else due[-1]
            scores[step] = judge.score(search.metric, judge.seen(images, (search.metric,), labels, prior), floor=False)
            asked.report(scores[step].value, step)
            if not taken.finished and asked.should_prune():
                raise _Stopped

        return hook

    return make
