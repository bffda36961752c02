"""Do a study: train what is not trained, judge what is not judged, and remember both by their content.

    OUT/runs/RUN-seedK/       a run like any other; interrupted, it goes on where it was
    OUT/results/ROW-seedK.json    the scores of a row, with the key of everything they depend on

The key of a result is the sha256 of the checkpoint's manifest (and that of the classifier that guides it; where a
weak model guides, or the average was made afterwards, of all that makes the images, `runs.identity`), the recipe it
was sampled by, the number of images, the metrics, the split and the judge; beside it stand hashes of the real images.
A result is made again only if one of them has changed. A run that diverges (steps that are not finite, or a loss that
ends above its start), or a model whose images are not finite, is a finding: it is remembered and shown as "-".
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sfumato.core.images import NonFiniteError
from sfumato.core.reading import as_written, read_json
from sfumato.core.writing import replace_json
from sfumato.evaluation.judge import judged_by, other_images, other_rules
from sfumato.experiments.judges import evaluated
from sfumato.experiments.study import Asked, Outcome, Row, Study, slug
from sfumato.metrics.metric import expand
from sfumato.metrics.protocol import canonical
from sfumato.metrics.score import Score
from sfumato.progress import say
from sfumato.runs.checkpoint import steps
from sfumato.runs.identity import identity, key_of
from sfumato.runs.idle import differences
from sfumato.runs.override import override
from sfumato.runs.part import asks
from sfumato.runs.recipe import Recipe
from sfumato.runs.records import read_records
from sfumato.runs.run import Run
from sfumato.training.guard import Diverged
from sfumato.training.loop import train
from sfumato.training.steps import share_spent

WORSE = 1.5  # a training whose loss ends at more than this times its start has diverged


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
        root: Data root; None for SFUMATO_DATA or the cache.
        device: None for the best at hand.
        quiet: Whether to show no progress bars and print no lines.

    Returns:
        One outcome per training seed and row, seed by seed in the order of the rows.

    Raises:
        RecipeError: If a run's directory holds another run.
        Interrupted: After a signal, with everything saved.
    """
    space = Workspace(Path(out), Path(runs) if runs is not None else Path(out) / "runs", root, device, quiet)
    tell: Callable[[str], None] = (lambda text: None) if quiet else say
    outcomes: list[Outcome] = []
    for seed in study.seeds:
        for row in study.rows:
            tell(f"[{len(outcomes) + 1}/{len(study.seeds) * len(study.rows)}] {row.name}, training seed {seed}")
            outcome = outcome_of(study, row, seed, space)
            tell("    " + (outcome.failed or "; ".join(_short(score) for score in outcome.scores.values())))
            outcomes.append(outcome)
    return outcomes


@dataclass(frozen=True)
class Workspace:
    """Where a study is done: directories, data and device.

    Attributes:
        out: Directory of the study.
        runs: Where trained runs lie.
        root: Data root; None for SFUMATO_DATA or the cache.
        device: None for the best at hand.
        quiet: Whether to show no progress bars.
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


def outcome_of(study: Study, row: Row, seed: int, space: Workspace) -> Outcome:
    """Train what a row needs and judge it, skipping what is done.

    Arguments:
        study: Study of the row.
        row: Row to judge.
        seed: Training seed of the run.
        space: Directories and device.
    """
    (space.out / "results").mkdir(parents=True, exist_ok=True)
    run: Run | None = None
    if not row.untrained:
        recipe = row.recipe
        if teacher := study.starts.get(row.trained):
            begun, failed = space.run(teacher, study.runs[teacher], seed)
            if begun is None:
                return Outcome(row, seed, None, {}, {}, f"its teacher {failed}")
            field = "train.start" if recipe.data.latent is None else "data.latent"
            recipe = override(recipe, [f"{field}={begun.path}"])
        run, failed = space.run(row.trained, recipe, seed)
        if run is None:
            return Outcome(row, seed, None, {}, {}, failed)
        guide: Run | None = None
        if row.guide:
            guide, failed = space.run(row.guide, study.guides[row.guide], seed)
            if guide is None:
                return Outcome(row, seed, None, {}, {}, f"its classifier {failed}")
        run = run.with_recipe(row.sampled(run.recipe, None if guide is None else guide.path))
    recipe = row.recipe if run is None else run.recipe
    file = space.out / "results" / f"{slug(row.name)}-seed{seed}.json"
    return judged(row, seed, Asked(study, recipe, run, space.root, space.device, space.quiet), file)


def _short(score: Score) -> str:
    return f"{score.name} {score.value:.4g} [{score.interval[0]:.4g}, {score.interval[1]:.4g}]"


def trained(
    recipe: Recipe, folder: Path, root: Path | str | None, device: torch.device | str | None, quiet: bool
) -> tuple[Run | None, str]:
    """Return the trained run of a recipe, training it if it is not there; or why there is none.

    Arguments:
        recipe: Recipe to train, not resolved.
        folder: Directory of the run.
        root: Data root; None for SFUMATO_DATA or the cache.
        device: Device to train on; None for the best at hand.
        quiet: Whether to show no progress bar.
    """
    given_up = folder / "diverged.json"
    if given_up.exists() and (told := read_json(given_up)).get("recipe") == recipe.hash:
        return None, str(told.get("reason", "diverged"))
    if (done := _finished(recipe, folder)) is not None:
        return done, ""
    try:
        run = train(recipe, folder, root=root, device=device, quiet=quiet)
        one_aim = run.plan.kind.walks and not asks(recipe.objective, "images")  # stages aim higher and higher
        reason = worse_than_at_first(folder) if one_aim else ""
    except Diverged as error:
        reason = f"diverged: {error}"
    if not reason:
        return run, ""
    replace_json(given_up, {"recipe": recipe.hash, "reason": reason})
    return None, reason


def _finished(recipe: Recipe, folder: Path) -> Run | None:
    """Return the run of this very recipe if it has spent all of its budget."""
    if not (folder / "recipe.json").exists() or not steps(folder / "checkpoints"):
        return None
    run = Run.open(folder)
    known = run.recipe
    filled = replace(
        recipe,
        shape=known.shape,
        sigma_data=recipe.sigma_data or known.sigma_data,
        code=known.code,
        learned=known.learned,
        latent=known.latent if recipe.data.latent else None,
    )
    if differences(filled, run.recipe):
        return None
    state = run.checkpoint.state
    return run if share_spent(recipe.train, state["seen"], state["elapsed"]) >= 1 else None


def worse_than_at_first(folder: Path) -> str:
    """Return why a finished training of a denoiser is said to have diverged, or "": its loss ends above its start.

    Arguments:
        folder: Directory of the run. The first and last tenths of its records are compared, by their medians.
    """
    records = read_records(folder / "metrics.jsonl")
    losses = [loss for record in records if isinstance(loss := record.get("loss"), int | float)]
    if len(losses) < 2:
        return ""
    tenth = max(1, len(losses) // 10)
    first, last = statistics.median(losses[:tenth]), statistics.median(losses[-tenth:])
    return "" if last <= WORSE * first else f"diverged: the loss rose from {first:.4g} to {last:.4g}"


def judged(row: Row, seed: int, asked: Asked, file: Path) -> Outcome:
    """Return the outcome of a row, from its file if that was made of the same things.

    Arguments:
        row: Row to judge.
        seed: Training seed of the run.
        asked: What the judge is given.
        file: JSON file of the result.
    """
    key, data = result_key(row, asked), judged_by(asked.recipe, asked.study.split, asked.root)
    stored = read_json(file, finite=False) if file.exists() else {}
    with as_written(str(file), "Delete it: its row is judged anew."):
        stale = stored.get("key") != key or other_images(stored, data)
        stale = stale or (asked.run is not None and other_rules(stored, asked.study.metrics, asked.recipe))
    if stale:
        stored = {"key": key, "data": data, "row": row.name, "seed": seed, "failed": "", "scores": {}, "facts": {}}
        try:
            scores, facts = (row.judge or _whole)(asked)
            facts = {"recipe": asked.recipe.hash, **facts} if asked.run is not None else facts
            stored |= {"scores": {metric: score.to_json() for metric, score in scores.items()}, "facts": facts}
        except NonFiniteError as error:
            stored["failed"] = f"images not finite: {error}"
        replace_json(file, stored)
    with as_written(str(file), "Delete it: its row is judged anew."):
        found = {metric: Score.from_json(values) for metric, values in stored["scores"].items()}
        return Outcome(row, seed, asked.run, found, stored["facts"], stored["failed"])


def _whole(asked: Asked) -> tuple[dict[str, Score], dict[str, Any]]:
    """Score all that a run makes, as `sfumato evaluate` does."""
    result = evaluated(asked)
    possible = [metric for metric in asked.study.metrics if not set(expand([metric])) & set(result.refused)]
    refused = {"refused": result.refused} if result.refused else {}
    return dict(zip(possible, result.scores, strict=True)), {**result.provenance, **refused}


def result_key(row: Row, asked: Asked) -> str:
    """Return the hash of everything a row's scores depend on.

    Arguments:
        row: Row to judge.
        asked: What the judge is given.
    """
    study = asked.study
    facts = [_manifest(asked.run), asked.recipe.to_json(), study.n, list(study.metrics), study.split]
    facts += [] if row.judge is None else [repr(row.judge)]
    if asked.recipe.sample.classifier is not None:
        facts.append(_manifest(Run.open(asked.recipe.sample.classifier)))
    unseen = asked.recipe.sample.autoguidance is not None or asked.recipe.ema.use.startswith("post-")
    if asked.run is not None and unseen:  # by the manifest
        facts.append(key_of(identity(asked.run)))
    return hashlib.sha256(canonical(facts).encode()).hexdigest()


def _manifest(run: Run | None) -> Any:
    if run is None:
        return None
    return read_json(run.checkpoint.path / "MANIFEST.json")
