"""Where a training begins: where the run in its directory stopped, or from another run's weights.

A run is resumed only by the recipe and the data that made it; fields that say how it is watched may differ.

Fine-tuning, distillation and consistency tuning begin from a trained model.
The weights of another run's network, usually an average, replace the network's own initial ones. What those weights
mean must stay the same: the target, the scale of the input and the conditioning belong to them.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from sfumato.core.reading import read_records
from sfumato.runs import checkpoint
from sfumato.runs import recipe as recipes
from sfumato.runs.guided import weak_of
from sfumato.runs.idle import differences
from sfumato.runs.plan import Plan
from sfumato.runs.recipe import Recipe, RecipeError
from sfumato.runs.run import Run

# Fields that say how a run is watched, not what it computes; they may differ on resume.
FREE = (
    *("train.log_every", "train.save_every", "train.keep", "train.sheet_every", "train.micro", "train.evaluate_every"),
    *("train.shard", "train.compile", "train.track", "ema.snapshots", "sample", "evaluate"),
    *("data.stream", "data.workers"),
)
MEANING = ("target", "c_in", "c_noise", "variance", "sigma_data")


def starting_weights(plan: Plan, text: str) -> dict[str, Tensor]:
    """Return the weights that a run begins from.

    Arguments:
        plan: The plan of the new run's resolved recipe.
        text: RUN, RUN@STEP, RUN@AVERAGE or RUN@STEP@AVERAGE.

    Raises:
        RecipeError: If there is no such run or average, or its network is another one.
        CheckpointError: If there is no such checkpoint.
    """
    recipe = plan.recipe
    if plan.kind.paired:
        raise RecipeError(f"train.start={text} begins from a denoiser's or classifier's weights; a GAN begins afresh.")
    where = weak_of(text, "train.start")
    if not where.folder:
        raise RecipeError(f"train.start={text} names no run. Give RUN{text}, the directory of a trained run.")
    found = Run.open(where.folder)
    run = Run(found.path, found.recipe, found.about, where.step)
    changed = differences(run.recipe, recipe)
    off = {k: v for k, v in changed.items() if k.split(".")[0] in MEANING}
    if off:
        lines = "\n".join(f"  {path}: {old} -> {new}" for path, (old, new) in off.items())
        raise RecipeError(
            f"The weights of {where.folder} are those of a network asked in another way:\n{lines}\n"
            "Give the new run the same target, c_in, c_noise, variance and sigma_data."
        )
    network = run.network(where.use)
    weights = network.state_dict()
    mine, theirs = _shapes(plan.network.state_dict()), _shapes(weights)
    if mine != theirs:
        name = next(n for n in [*mine, *theirs] if mine.get(n) != theirs.get(n))
        raise RecipeError(
            f"The network of {where.folder} has other weights than this recipe's ({name}: {theirs.get(name, 'none')} "
            f"there, {mine.get(name, 'none')} here). Set network to {run.recipe.network}."
        )
    return weights


def _shapes(weights: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}


def check_resumes(folder: Path, recipe: Recipe, fingerprint: dict[str, str], allow: tuple[str, ...]) -> None:
    """Refuse to go on with another run than the one in a directory.

    Arguments:
        folder: The run's directory; one without checkpoints holds no run.
        recipe: The resolved recipe that is to be trained.
        fingerprint: Fingerprint of the training data.
        allow: Fields that may differ.

    Raises:
        RecipeError: If the recipe or the data differ, naming the fields, or the weights were imported.
    """
    if not (folder / "recipe.json").exists() or not checkpoint.steps(folder / "checkpoints"):
        return
    before = Run.open(folder)
    if "imported" in before.about:
        raise RecipeError(
            f"{folder} holds imported weights without an optimiser, so there is no training to go on with. A denoiser "
            "or classifier can begin from them in a run of its own (another --out and train.start=RUN); a GAN begins "
            "afresh."
        )
    changed = differences(before.recipe, recipe) | recipes.differences(before.about["fingerprint"], fingerprint, "data")
    meant = (*FREE, *allow)
    real = {k: v for k, v in changed.items() if not any(k == f or k.startswith(f + ".") for f in meant)}
    if real:
        lines = "\n".join(f"  {path}: {old} -> {new}" for path, (old, new) in real.items())
        raise RecipeError(
            f"{folder} holds a run that differs from what you ask:\n{lines}\n"
            "Give another --out to start afresh, or name each meant change with --allow FIELD."
        )


def trim_log(metrics: Path, step: int) -> None:
    """Drop records of steps that a crash lost, so that the log is the one of an uninterrupted run."""
    if metrics.exists():
        records = [record for record in read_records(metrics) if record.get("step", step + 1) <= step]
        metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
