"""Where a training begins: where the run in its directory stopped, or from another run's weights.

A run is resumed only by the recipe and the data that made it; fields that say how it is watched may differ.

Fine-tuning, distillation and consistency tuning begin from a trained model.
The weights of another run's network, usually an average, replace the network's own initial ones. What those weights
mean must stay the same: the target, the scale of the input and the conditioning belong to them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from sfumato.core.digest import hash_tensors
from sfumato.data.dataset import Dataset
from sfumato.data.streaming import Stream
from sfumato.evaluation.real import order_of
from sfumato.metrics.protocol import canonical
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
    *("data.stream", "data.workers", "code"),  # the data itself is compared
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


def fingerprint_of(
    folder: Path, recipe: Recipe, data: Dataset | Stream, start: Mapping[str, Tensor] | None = None
) -> dict[str, str]:
    """Return what tells the training data of a run, and the mark by which it knows its own checkpoints.

    Training takes the image at a position, and tells the model its label, so both belong to the data. The mark is a
    hash of the recipe, data and weights that the run began with, and stays when it goes on.

    Arguments:
        folder: The run's directory.
        recipe: The resolved recipe.
        data: The training images.
        start: The weights that a new run begins from; None for the network's own.
    """
    found = {"data": data.content_hash, "indices": data.index_hash, "rule": data.rule, "order": order_of(data)}
    if recipe.data.labels and data.labels is not None:
        found["labelling"] = hashlib.sha256(data.labels.numpy().astype("<i8").tobytes()).hexdigest()
    if start is not None:
        found["start"] = hash_tensors(start)
    mark = hashlib.sha256(canonical([recipe.hash, found]).encode()).hexdigest()[:16]
    begun = Run.open(folder).about.get("fingerprint", {}) if _begun(folder) else {}
    return found | {"run": mark} | {key: begun[key] for key in ("start", "run") if key in begun}


def _begun(folder: Path) -> bool:
    """Return whether a directory holds a run; one without checkpoints does not."""
    return (folder / "recipe.json").exists() and bool(checkpoint.steps(folder / "checkpoints"))


def _refuse_foreign(run: Run) -> None:
    """Refuse a directory with a checkpoint of another run: training would go on from it, or keep it and drop its own.

    Raises:
        CheckpointError: If there is one.
    """
    for step in checkpoint.steps(run.path / "checkpoints"):
        try:
            found = checkpoint.load(run.path / "checkpoints" / f"step-{step}", ())
        except checkpoint.CheckpointError:
            continue  # a damaged one is passed over
        checkpoint.of_run(run.mark)(found)


def check_resumes(folder: Path, recipe: Recipe, fingerprint: dict[str, str], allow: tuple[str, ...]) -> None:
    """Refuse to go on with another run than the one in a directory.

    Arguments:
        folder: The run's directory; one without checkpoints holds no run.
        recipe: The resolved recipe that is to be trained.
        fingerprint: Fingerprint of the training data.
        allow: Fields that may differ.

    Raises:
        RecipeError: If the recipe or the data differ, naming the fields, or the weights were imported.
        CheckpointError: If a checkpoint is of another run.
    """
    if not _begun(folder):
        return
    before = Run.open(folder)
    if "imported" in before.about:
        raise RecipeError(
            f"{folder} holds imported weights without an optimiser, so there is no training to go on with. A denoiser "
            "or classifier can begin from them in a run of its own (another --out and train.start=RUN); a GAN begins "
            "afresh."
        )
    _refuse_foreign(before)
    recorded = before.about["fingerprint"]  # an earlier version recorded less
    now = {key: fingerprint.get(key, value) for key, value in recorded.items()}
    changed = differences(before.recipe, recipe) | recipes.differences(recorded, now, "data")
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
        lines = (line for line in metrics.read_text().splitlines(keepends=True) if line.endswith("\n"))  # whole ones
        metrics.write_text("".join(line for line in lines if json.loads(line)["step"] <= step))
