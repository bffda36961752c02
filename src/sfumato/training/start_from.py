"""Where a training begins: where the run in its directory stopped, or from another run's weights.

A run is resumed only by the recipe and the data that made it; fields that say how it is watched may differ.

Fine-tuning, distillation and consistency tuning begin from a trained model.
The weights of another run's network, usually an average, replace the network's own initial ones. What those weights
mean must stay the same: the target, the scale of the input and the conditioning belong to them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from sfumato.core.digest import hash_tensors
from sfumato.data.dataset import Dataset
from sfumato.data.streaming import Stream
from sfumato.evaluation.real import order_of
from sfumato.metrics.protocol import canonical
from sfumato.runs import checkpoint
from sfumato.runs import recipe as recipes
from sfumato.runs.averages import spellings
from sfumato.runs.guided import weak_of
from sfumato.runs.idle import differences
from sfumato.runs.plan import Plan
from sfumato.runs.recipe import Recipe, RecipeError, Shape
from sfumato.runs.run import Run

# Fields that say how a run is watched, not what it computes; they may differ on resume.
FREE = (
    *("train.log_every", "train.save_every", "train.keep", "train.sheet_every", "train.micro", "train.evaluate_every"),
    *("train.shard", "train.compile", "train.track", "ema.snapshots", "sample", "evaluate"),
    *("data.stream", "data.workers", "data.latent", "code"),  # the data itself is compared, and the encoder's weights
)
# What is made anew if these fields differ from those that a checkpoint was made with: beginnings of its groups.
RENEWED = {
    "ema.power": "ema-",
    "ema.half_life": "ema-",
    "train.optimizer.name": "optimizer-",
    "draw.name": "draw",
    "objective.name": "objective",
}
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
    try:
        found = Run.open(where.folder)
    except RecipeError as error:
        raise RecipeError(f"train.start={text}: {error}") from error
    run = Run(found.path, found.recipe, found.about, where.step)
    network = run.network(where.use)
    weights = network.state_dict()
    mine, theirs = _shapes(plan.network.state_dict()), _shapes(weights)
    told = _text(run.recipe.shape), _text(recipe.shape)
    if mine != theirs and run.recipe.network == recipe.network and told[0] != told[1]:
        raise RecipeError(
            f"train.start={text} is a model of {told[0]}, and this recipe's data is "
            f"{told[1]}: the weights do not fit. Give it data of that shape and those classes (data.size, "
            "data.classes, data.labels), or begin afresh with train.start=none."
        )
    changed = differences(run.recipe, recipe)
    off = {k: v for k, v in changed.items() if k.split(".")[0] in MEANING}
    if off:
        lines = "\n".join(f"  {path}: {old} -> {new}" for path, (old, new) in off.items())
        raise RecipeError(
            f"The weights of {where.folder} are those of a network asked in another way:\n{lines}\n"
            "Give the new run the same target, c_in, c_noise, variance and sigma_data."
        )
    if mine != theirs:
        name = next(n for n in [*mine, *theirs] if mine.get(n) != theirs.get(n))
        raise RecipeError(
            f"The network of {where.folder} has other weights than this recipe's ({name}: {theirs.get(name, 'none')} "
            f"there, {mine.get(name, 'none')} here). Set network to {run.recipe.network}."
        )
    return weights


def _text(shape: Shape | None) -> str:
    assert shape is not None  # both recipes are resolved
    return f"{shape.channels}x{shape.height}x{shape.width} images of {len(shape.classes)} classes"


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
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
    for key in ("imported", "exported", "selected"):
        if key in before.about:
            raise RecipeError(
                f"{folder} holds {key} weights without an optimiser, so there is no training to go on with. A denoiser "
                "or classifier can begin from them in a run of its own (another --out and train.start=RUN); a GAN "
                "begins afresh."
            )
    _refuse_foreign(before)
    recorded = before.about.get("fingerprint", {})  # an earlier version recorded less
    known = recipes.differences(recorded, {key: fingerprint.get(key, value) for key, value in recorded.items()}, "data")
    changed = {_plain(k): v for k, v in (differences(before.recipe, recipe) | known).items()}
    meant = (*FREE, *map(_plain, allow))
    real = {k: v for k, v in changed.items() if not any(k == f or k.startswith(f + ".") for f in meant)}
    if real:
        lines = "\n".join(f"  {path}: {old} -> {new}" for path, (old, new) in real.items())
        raise RecipeError(
            f"{folder} holds a run that differs from what you ask:\n{lines}\n"
            "Give another --out to start afresh, or name each meant change with --allow FIELD."
        )


def _plain(path: str) -> str:
    """Return a field as a person writes it: an option of a part is train.optimizer.lr."""
    return path.replace(".options.", ".")


def taken_over(saved: checkpoint.Checkpoint, recipe: Recipe) -> checkpoint.Checkpoint:
    """Return a checkpoint without what a recipe makes anew: averages that are new, the state of another optimiser.

    Arguments:
        saved: A checkpoint of the run.
        recipe: The recipe that goes on from it.

    Raises:
        CheckpointError: If it does not hold a recipe.
    """
    renewed = set(_renewed(saved, recipe)) - {"ema-"}  # averages that are kept are in the checkpoint under their names
    kept = {stem: group for stem, group in saved.tensors.items() if not stem.startswith(tuple(renewed))}
    return replace(saved, tensors=kept)


def _renewed(saved: checkpoint.Checkpoint, recipe: Recipe) -> tuple[str, ...]:
    try:
        changed = recipes.differences(Recipe.from_json(saved.state["recipe"]), recipe)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise checkpoint.CheckpointError(f"{saved.path} holds no recipe ({type(error).__name__}: {error}).") from None
    return tuple(group for field, group in RENEWED.items() if field in changed)


def check_fits(wanted: Mapping[str, Mapping[str, Tensor]], recipe: Recipe) -> Callable[[checkpoint.Checkpoint], None]:
    """Return what refuses a checkpoint from which a trainer cannot go on, before anything is changed.

    Arguments:
        wanted: Tensors of the trainer as it starts, by group. Those of networks must have the same names and shapes.
        recipe: The recipe that the trainer follows.
    """

    def check(saved: checkpoint.Checkpoint) -> None:
        checkpoint.holding("seen", "step", "elapsed", "skipped", "recipe")(saved)
        renewed = _renewed(saved, recipe)
        for name, group in wanted.items():
            spelled = [f"ema-{s}" for s in spellings(name.removeprefix("ema-"), recipe.ema)] if "ema-" in name else []
            stem = next((other for other in spelled if other in saved.tensors), name)
            if stem not in saved.tensors and stem.startswith(renewed):
                continue
            checkpoint.holding(stem)(saved)
            if not stem.startswith(("network", "ema-")):
                continue
            mine, theirs = _shapes(group), _shapes(saved.tensors[stem])
            if mine != theirs:
                off = next(n for n in [*mine, *theirs] if mine.get(n) != theirs.get(n))
                raise checkpoint.CheckpointError(
                    f"{saved.path} cannot be taken over by this recipe: {off} of {stem} is {theirs.get(off, 'none')} "
                    f"there and {mine.get(off, 'none')} here. Give another --out; train.start=RUN begins a run from "
                    "another's weights."
                )

    return check
