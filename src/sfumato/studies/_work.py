"""Do a study: train what is not trained, judge what is not judged, and remember both by their content.

    OUT/runs/RUN-seedK/       a run like any other; interrupted, it goes on where it was
    OUT/results/ROW-seedK.json    the scores of a row, with the key of everything they depend on

The key of a result is the sha256 of the checkpoint's manifest, the recipe it was sampled by, the number of images, the
metrics and the split. A result is made again only if its key has changed. A run that diverges, or a model whose images
are not finite, is a finding: it is remembered and shown as "-".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from sfumato import evaluation
from sfumato.core.images import NonFiniteError
from sfumato.metrics.protocol import canonical
from sfumato.metrics.score import Score
from sfumato.studies._cost import as_sampled
from sfumato.studies._study import Row, Study
from sfumato.training.checkpoint import replace_json, steps
from sfumato.training.guard import Diverged
from sfumato.training.loop import train
from sfumato.training.recipe import Recipe, differences, override
from sfumato.training.run import Run


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
    out = Path(out)
    folder = Path(runs) if runs is not None else out / "runs"
    (out / "results").mkdir(parents=True, exist_ok=True)
    say: Callable[[str], None] = (lambda text: None) if quiet else tqdm.write
    outcomes: list[Outcome] = []
    for seed in study.seeds:
        for row in study.rows:
            say(f"[{len(outcomes) + 1}/{len(study.seeds) * len(study.rows)}] {row.name}, training seed {seed}")
            recipe = override(row.recipe, [f"train.seed={seed}"])
            run, failed = trained(recipe, folder / f"{slug(row.trained)}-seed{seed}", root, device, quiet)
            if run is None:
                outcome = Outcome(row, seed, None, {}, {}, failed)
            else:
                file = out / "results" / f"{slug(row.name)}-seed{seed}.json"
                outcome = judged(study, row, seed, run, file, root, device, quiet)
            say("    " + (outcome.failed or "; ".join(_short(score) for score in outcome.scores.values())))
            outcomes.append(outcome)
    return outcomes


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
    if (done := _finished(recipe, folder)) is not None:
        return done, ""
    grave = folder / "diverged.json"
    if grave.exists() and (told := json.loads(grave.read_text()))["recipe"] == recipe.hash:
        return None, told["reason"]
    try:
        return train(recipe, folder, root=root, device=device, quiet=quiet), ""
    except Diverged as error:
        replace_json(grave, {"recipe": recipe.hash, "reason": f"diverged: {error}"})
        return None, f"diverged: {error}"


def _finished(recipe: Recipe, folder: Path) -> Run | None:
    """Return the run of this very recipe if it has seen all of its images."""
    if not (folder / "recipe.json").exists() or not steps(folder / "checkpoints"):
        return None
    run = Run.open(folder)
    filled = replace(recipe, shape=run.recipe.shape, sigma_data=recipe.sigma_data or run.recipe.sigma_data)
    return run if not differences(filled, run.recipe) and run.checkpoint.state["seen"] >= recipe.train.images else None


def judged(
    study: Study,
    row: Row,
    seed: int,
    run: Run,
    file: Path,
    root: Path | str | None,
    device: torch.device | str | None,
    quiet: bool,
) -> Outcome:
    """Return the outcome of a row, from its file if that was made of the same things.

    Arguments:
        study: Says how many images, which metrics and which split.
        row: Which.
        seed: Of the training.
        run: Trained.
        file: The result's.
        root: Data root.
        device: Where to sample.
        quiet: No progress bar.
    """
    run = run.with_recipe(as_sampled(row, run.recipe))
    key = result_key(study, run)
    stored = json.loads(file.read_text()) if file.exists() else {}
    if stored.get("key") != key:
        stored = {"key": key, "row": row.name, "seed": seed, "failed": "", "scores": {}, "facts": {}}
        try:
            found = evaluation.evaluate(
                run, n=study.n, metrics=study.metrics, split=study.split, root=root, device=device, quiet=quiet
            )
            numbers = {metric: score.to_json() for metric, score in zip(study.metrics, found.scores)}
            stored |= {"scores": numbers, "facts": found.provenance}
        except NonFiniteError as error:
            stored["failed"] = f"images not finite: {error}"
        replace_json(file, stored)
    scores = {metric: Score.from_json(values) for metric, values in stored["scores"].items()}
    return Outcome(row, seed, run, scores, stored["facts"], stored["failed"])


def result_key(study: Study, run: Run) -> str:
    """Return the hash of everything a row's scores depend on.

    Arguments:
        study: Says how many images, which metrics and which split.
        run: With the row's settings.
    """
    folder = run.path / "checkpoints"
    manifest = json.loads((folder / f"step-{steps(folder)[-1]}" / "MANIFEST.json").read_text())
    facts = [manifest, run.recipe.to_json(), study.n, list(study.metrics), study.split]
    return hashlib.sha256(canonical(facts).encode()).hexdigest()
