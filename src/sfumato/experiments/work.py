"""Do a study: train what is not trained, judge what is not judged, and remember both by their content.

    OUT/runs/RUN-seedK/       a run like any other; interrupted, it goes on where it was
    OUT/results/ROW-seedK.json    the scores of a row, with the key of everything they depend on

The key of a result is the sha256 of the checkpoint's manifest (and that of the classifier that guides it), the recipe
it was sampled by, the number of images, the metrics, the split and the judge. A result is made again only if its key
has changed. A run that diverges (steps that are not finite, or a loss that ends above its start), or a model whose
images are not finite, is a finding: it is remembered and shown as "-".
"""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from sfumato import evaluation
from sfumato.core.images import NonFiniteError
from sfumato.experiments.cost import as_sampled
from sfumato.experiments.study import Asked, Row, Study, StudyError
from sfumato.metrics.protocol import canonical
from sfumato.metrics.score import Score
from sfumato.runs.checkpoint import replace_json, steps
from sfumato.runs.idle import differences
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.runs.run import Run
from sfumato.training.guard import Diverged
from sfumato.training.loop import train
from sfumato.training.optimizer_state import share_spent

WORSE = 1.5  # a training whose loss ends at more than this times its start has diverged


@dataclass(frozen=True)
class Outcome:
    """What a row came to, for one training seed.

    Attributes:
        row: Which.
        seed: Of the training.
        run: Opened, with the row's settings; None if it diverged.
        scores: By the metric's name, "fd".
        facts: What made them: NFE, images seen, seconds, sampler.
        failed: Why there are no scores; "" if there are.
    """

    row: Row
    seed: int
    run: Run | None
    scores: dict[str, Score]
    facts: dict[str, Any]
    failed: str = ""

    @property
    def x(self) -> float | None:
        """Position on the axis: the row's own, or the measured number of function evaluations."""
        return self.row.x if self.row.x is not None else self.facts.get("nfe")


def slug(name: str) -> str:
    """Return a name as part of a file's name.

    >>> slug("DDIM, eta = 0.2")
    'ddim-eta-0.2'
    """
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def carry_out(
    study: Study,
    out: Path | str,
    *,
    runs: Path | str | None = None,
    root: Path | str | None = None,
    device: torch.device | str | None = None,
    quiet: bool = False,
) -> list[Outcome]:
    """Train and judge every row of a study, skipping what is done.

    Arguments:
        study: At its scale.
        out: Directory of the study.
        runs: Where trained runs lie, so that studies may share them; OUT/runs unless given.
        root: Data root.
        device: None for the best at hand.
        quiet: No progress bars and no lines.

    Returns:
        One outcome per training seed and row, seed by seed in the order of the rows.

    Raises:
        RecipeError: If a run's directory holds another run.
        Interrupted: After a signal, with everything saved.
    """
    place = Place(Path(out), Path(runs) if runs is not None else Path(out) / "runs", root, device, quiet)
    say: Callable[[str], None] = (lambda text: None) if quiet else tqdm.write
    outcomes: list[Outcome] = []
    for seed in study.seeds:
        for row in study.rows:
            say(f"[{len(outcomes) + 1}/{len(study.seeds) * len(study.rows)}] {row.name}, training seed {seed}")
            outcome = outcome_of(study, row, seed, place)
            say("    " + (outcome.failed or "; ".join(_short(score) for score in outcome.scores.values())))
            outcomes.append(outcome)
    return outcomes


@dataclass(frozen=True)
class Place:
    """Where a study is done.

    Attributes:
        out: Directory of the study.
        runs: Where trained runs lie.
        root: Data root.
        device: None for the best at hand.
        quiet: No progress bars.
    """

    out: Path
    runs: Path
    root: Path | str | None = None
    device: torch.device | str | None = None
    quiet: bool = False

    def run(self, name: str, recipe: Recipe, seed: int) -> tuple[Run | None, str]:
        """Return the run of a recipe for a training seed, trained now if it is not there; or why there is none."""
        seeded = override(recipe, [f"train.seed={seed}"])
        return trained(seeded, self.runs / f"{slug(name)}-seed{seed}", self.root, self.device, self.quiet)


def outcome_of(study: Study, row: Row, seed: int, place: Place) -> Outcome:
    """Train what a row needs and judge it, skipping what is done.

    Arguments:
        study: It belongs to.
        row: Which.
        seed: Of the training.
        place: Where.
    """
    (place.out / "results").mkdir(parents=True, exist_ok=True)
    run: Run | None = None
    if not row.untrained:
        run, failed = place.run(row.trained, row.recipe, seed)
        if run is None:
            return Outcome(row, seed, None, {}, {}, failed)
        guide: Run | None = None
        if row.guide:
            guide, failed = place.run(row.guide, study.guides[row.guide], seed)
            if guide is None:
                return Outcome(row, seed, None, {}, {}, f"its classifier {failed}")
        run = run.with_recipe(as_sampled(row, run.recipe, None if guide is None else guide.path))
    recipe = row.recipe if run is None else run.recipe
    file = place.out / "results" / f"{slug(row.name)}-seed{seed}.json"
    return judged(row, seed, Asked(study, recipe, run, place.root, place.device, place.quiet), file)


def _short(score: Score) -> str:
    return f"{score.name} {score.value:.4g} [{score.interval[0]:.4g}, {score.interval[1]:.4g}]"


def trained(
    recipe: Recipe, folder: Path, root: Path | str | None, device: torch.device | str | None, quiet: bool
) -> tuple[Run | None, str]:
    """Return the trained run of a recipe, training it if it is not there; or why there is none.

    Arguments:
        recipe: Not resolved.
        folder: Of the run.
        root: Data root.
        device: Where to train.
        quiet: No progress bar.
    """
    grave = folder / "diverged.json"
    if grave.exists() and (told := json.loads(grave.read_text()))["recipe"] == recipe.hash:
        return None, told["reason"]
    if (done := _finished(recipe, folder)) is not None:
        return done, ""
    try:
        run = train(recipe, folder, root=root, device=device, quiet=quiet)
        reason = worse_than_at_first(folder) if run.plan.kind.walks else ""
    except Diverged as error:
        reason = f"diverged: {error}"
    if not reason:
        return run, ""
    replace_json(grave, {"recipe": recipe.hash, "reason": reason})
    return None, reason


def _finished(recipe: Recipe, folder: Path) -> Run | None:
    """Return the run of this very recipe if it has spent all of its budget."""
    if not (folder / "recipe.json").exists() or not steps(folder / "checkpoints"):
        return None
    run = Run.open(folder)
    filled = replace(recipe, shape=run.recipe.shape, sigma_data=recipe.sigma_data or run.recipe.sigma_data)
    if differences(filled, run.recipe):
        return None
    state = run.checkpoint.state
    return run if share_spent(recipe.train, state["seen"], state["elapsed"]) >= 1 else None


def worse_than_at_first(folder: Path) -> str:
    """Return why a finished training of a denoiser is said to have diverged, or "": its loss ends above its start.

    Arguments:
        folder: Of the run. The first and last tenths of its records are compared, by their medians.
    """
    losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    tenth = max(1, len(losses) // 10)
    first, last = statistics.median(losses[:tenth]), statistics.median(losses[-tenth:])
    if len(losses) < 2 or last <= WORSE * first:
        return ""
    return f"diverged: the loss rose from {first:.4g} to {last:.4g}"


def judged(row: Row, seed: int, asked: Asked, file: Path) -> Outcome:
    """Return the outcome of a row, from its file if that was made of the same things.

    Arguments:
        row: Which.
        seed: Of the training.
        asked: What is scored.
        file: The result's.
    """
    key = result_key(row, asked)
    stored = json.loads(file.read_text()) if file.exists() else {}
    if stored.get("key") != key:
        stored = {"key": key, "row": row.name, "seed": seed, "failed": "", "scores": {}, "facts": {}}
        try:
            scores, facts = (row.judge or _whole)(asked)
            stored |= {"scores": {metric: score.to_json() for metric, score in scores.items()}, "facts": facts}
        except NonFiniteError as error:
            stored["failed"] = f"images not finite: {error}"
        replace_json(file, stored)
    found = {metric: Score.from_json(values) for metric, values in stored["scores"].items()}
    return Outcome(row, seed, asked.run, found, stored["facts"], stored["failed"])


def _whole(asked: Asked) -> tuple[dict[str, Score], dict[str, Any]]:
    """Score all that a run makes, as `sfumato evaluate` does."""
    if asked.run is None:
        raise StudyError("A row without a run needs a judge of its own.")
    study = asked.study
    result = evaluation.evaluate(
        asked.run,
        n=study.n,
        metrics=study.metrics,
        split=study.split,
        root=asked.root,
        device=asked.device,
        quiet=asked.quiet,
    )
    return dict(zip(study.metrics, result.scores)), result.provenance


def result_key(row: Row, asked: Asked) -> str:
    """Return the hash of everything a row's scores depend on.

    Arguments:
        row: Which.
        asked: What is scored.
    """
    study = asked.study
    facts = [_manifest(asked.run), asked.recipe.to_json(), study.n, list(study.metrics), study.split]
    facts += [] if row.judge is None else [repr(row.judge)]
    if asked.recipe.sample.classifier is not None:
        facts.append(_manifest(Run.open(asked.recipe.sample.classifier)))
    return hashlib.sha256(canonical(facts).encode()).hexdigest()


def _manifest(run: Run | None) -> Any:
    if run is None:
        return None
    folder = run.path / "checkpoints"
    return json.loads((folder / f"step-{steps(folder)[-1]}" / "MANIFEST.json").read_text())
