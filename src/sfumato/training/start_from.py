"""Where a training begins: where the run in its directory stopped, or from another run's weights.

A run is resumed only by the recipe and the data that made it; fields that say how it is watched may differ.

Fine-tuning, distillation and consistency tuning begin from a trained model, another run's or an imported one.
The weights of its network, usually an average, replace the network's own initial ones. What those weights mean must
stay the same: the target, the scale of the input and the conditioning belong to them. The classes may change; labels,
attributes and an image beside may come or go, and a network may be told where its steps end. Told nothing, the model is
at first the parent's own, bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from sfumato.core.weights import hash_tensors
from sfumato.data.dataset import Dataset
from sfumato.data.streaming import Stream
from sfumato.evaluation.real import content_of
from sfumato.metrics.protocol import canonical
from sfumato.networks._embeddings import Span, label_tables, untrained_layers
from sfumato.runs import checkpoint
from sfumato.runs import recipe as recipes
from sfumato.runs.averages import spellings
from sfumato.runs.guided import weak_of
from sfumato.runs.idle import differences
from sfumato.runs.kinds import kind_of
from sfumato.runs.part import asks, option
from sfumato.runs.plan import Plan
from sfumato.runs.recipe import Recipe, RecipeError, Shape
from sfumato.runs.run import Run
from sfumato.training.steps import Steps

# Fields that say how a run is watched, not what it computes; they may differ on resume.
FREE = (
    *("train.log_every", "train.save_every", "train.keep", "train.sheet_every", "train.micro", "train.evaluate_every"),
    *("train.shard", "train.compile", "train.track", "ema.snapshots", "sample", "evaluate"),
    *("data.stream", "data.workers", "data.latent", "code", "learned"),  # what they stand for is compared
)
# What is made anew if these fields differ from those that a checkpoint was made with: beginnings of its groups.
RENEWED = {
    "ema.power": "ema-",
    "ema.half_life": "ema-",
    "train.optimizer.name": "optimizer-",
    "train.freeze": "optimizer-",
    "train.rate_factors": "optimizer-",
    "draw.name": "draw",
    "objective.name": "objective",
}
MEANING = ("target", "c_in", "c_noise", "variance", "sigma_data")


def parent_of(recipe: Recipe) -> Parent | None:
    """Return the weights that a recipe's training begins from; None for the network's own.

    Raises:
        RecipeError: If there is no such run or average, or the recipe trains a GAN.
        CheckpointError: If there is no such checkpoint.
    """
    text = recipe.train.start
    if text is None:
        return None
    if kind_of(recipe).paired:
        raise RecipeError(f"train.start={text} begins from a denoiser's or classifier's weights; a GAN begins afresh.")
    where = weak_of(text, "train.start")
    if not where.folder:
        raise RecipeError(f"train.start={text} names no run. Give RUN{text}, the directory of a trained run.")
    try:
        found = Run.open(where.folder)
    except RecipeError as error:
        raise RecipeError(f"train.start={text}: {error}") from error
    return Parent(replace(found, step=where.step), where.use)


@dataclass(frozen=True)
class Parent:
    """A trained network that another training begins from.

    Attributes:
        run: At its checkpoint.
        use: Average of its weights; None for its recipe's choice.
    """

    run: Run
    use: str | None

    @cached_property
    def network(self) -> nn.Module:
        """The network with these weights."""
        return self.run.network(self.use)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes that it knows."""
        shape = self.run.recipe.shape
        return shape.classes if shape is not None and self.run.recipe.data.labels else ()

    @property
    def numbered(self) -> bool:
        """Whether its classes have numbers only: those of another project's checkpoint."""
        return "imported" in self.run.about

    @property
    def always_told(self) -> bool:
        """Whether it was told a label of every image, so that its row for "no label" was never trained."""
        recipe = self.run.recipe
        return bool(recipe.data.labels) and option(recipe.objective, "label_dropout") == 0


def own_recipe(folder: Path) -> Recipe | None:
    """Return the recipe of the run in a directory; None if it holds none."""
    return Run.open(folder).recipe if _begun(folder) else None


def inherited(recipe: Recipe, asked: Recipe, parent: Recipe) -> Recipe:
    """Return a resolved recipe with what comes with the weights that it begins from.

    A recipe that leaves sigma_data open takes the one that the weights were trained with. An unlabelled network that
    begins from a labelled one keeps the row for "no label", so that it is the parent's unconditional model. An
    attribute that the parent knows by its name is standardised as there, and so is a latent of the same autoencoder.

    Arguments:
        recipe: The recipe with what the data decides filled in.
        asked: The recipe as a person gave it, sigma_data possibly left open.
        parent: Recipe of the run that it begins from, or of this very run if it goes on.
    """
    shape = recipe.shape
    if recipe.train.start is None or shape is None or parent.shape is None:
        return recipe
    sigma_data = parent.sigma_data if asked.sigma_data is None else recipe.sigma_data
    null = not recipe.data.labels and (parent.shape.null or bool(parent.data.labels))
    known = {name: (mean, deviation) for name, mean, deviation, _, _ in parent.shape.attributes}
    rows = ((name, known.get(name, own), low, high) for name, *own, low, high in shape.attributes)
    told = tuple((name, mean, deviation, low, high) for name, (mean, deviation), low, high in rows)
    mine, theirs = recipe.latent, parent.latent
    if mine is not None and theirs is not None and mine.weights == theirs.weights and not mine.scale:
        recipe = replace(recipe, latent=theirs)
    return replace(recipe, sigma_data=sigma_data, shape=replace(shape, null=null, attributes=told))


def starting_weights(plan: Plan, parent: Parent) -> dict[str, Tensor]:
    """Return the weights that a run begins from: the parent's, laid out for other classes and for what else is told.

    Arguments:
        plan: The plan of the new run's resolved recipe.
        parent: What it begins from.

    Returns:
        Weights by name, but for the layers that tell what the parent was never told: they begin as the network's own.

    Raises:
        RecipeError: If the network is another one, or is asked in another way.
    """
    recipe, run = plan.recipe, parent.run
    changed = differences(run.recipe, recipe)
    meaning = (*MEANING, *(["schedule"] if plan.known is not None else []))  # c_noise counts the levels of a table
    off = {k: v for k, v in changed.items() if k.split(".")[0] in meaning}
    if off:
        lines = "\n".join(f"  {path}: {old} -> {new}" for path, (old, new) in off.items())
        raise RecipeError(
            f"The weights of {run.path} are those of a network asked in another way:\n{lines}\n"
            f"Give the new run the same {', '.join(meaning[:-1])} and {meaning[-1]}."
        )
    _check_latents(recipe, run)
    weights = _told_beside(plan, parent) | _label_rows(plan, parent)
    mine, theirs = _shapes(plan.network.state_dict()), _shapes(weights)
    new = tuple(f"{path}." for path in untrained_layers(plan.network))
    theirs |= {name: size for name, size in mine.items() if name not in theirs and name.startswith(new)}
    if mine != theirs:
        raise RecipeError(_misfit(recipe, parent, mine, theirs))
    return weights


def _check_latents(recipe: Recipe, run: Run) -> None:
    """Refuse weights for pixels, or for latents of another autoencoder, which are of no use here."""
    theirs, mine = (each.latent.weights[:16] if each.latent else "none" for each in (run.recipe, recipe))
    if theirs != mine:
        raise RecipeError(
            f"The weights of {run.path} are for data.latent={run.recipe.data.latent or 'none'} ({theirs}), and this "
            f"recipe's are for {recipe.data.latent or 'none'} ({mine}). Give both the same autoencoder."
        )


def check_teacher(recipe: Recipe, parent: Parent, data: Dataset | Stream) -> None:
    """Refuse a teacher of other images or classes than its student's, where the objective has a teacher.

    Arguments:
        recipe: The student's resolved recipe.
        parent: The teacher; what was imported does not say what it was trained on.
        data: The student's training images.

    Raises:
        RecipeError: Naming both.
    """
    run = parent.run
    if not asks(recipe.objective, "teacher") or parent.numbered:
        return
    shapes = (run.recipe.shape, recipe.shape)
    theirs, mine = ((s.channels, s.height, s.width, s.classes) if s else () for s in shapes)
    hashed = run.about.get("fingerprint", {}).get("data")
    if theirs != mine or (run.recipe.data.name != recipe.data.name and hashed != data.content_hash):
        raise RecipeError(
            f"objective={recipe.objective.name} teaches a student on its teacher's images and classes: {run.path} was "
            f"trained on {_text(run.recipe.shape)} (data.name={run.recipe.data.name}), and this recipe's data is "
            f"{_text(recipe.shape)} (data.name={recipe.data.name}). Give the student the data of its teacher."
        )


def _label_rows(plan: Plan, parent: Parent) -> dict[str, Tensor]:
    """Return the tables of labels for the new run's classes, by name.

    A class of the parent's keeps its row, known by its name (a cluster by the clustering as well). Another begins as
    "no label" does, and so do all where the parent has none: at zero, which adds nothing. Where the parent was told
    every label its row for none was never trained, and new ones begin at the mean of its classes.
    """
    theirs, classes = label_tables(parent.network), plan.shape.classes if plan.classes else ()
    known = parent.names if parent.run.recipe.learned == plan.recipe.learned else ()  # clusters of others are others
    known = classes if parent.numbered and len(parent.names) == len(classes) else known
    made = {}
    for path, table in label_tables(plan.network).items():
        if table.table is None or path not in theirs:
            continue
        old = theirs[path].table
        rows = torch.zeros(1, table.width) if old is None else old.weight.detach()
        new = rows[:-1].mean(0) if parent.always_told else rows[-1]
        named = dict(zip(known, rows))
        last = rows[-1] if classes else new
        made[f"{path}.table.weight"] = torch.stack([*(named.get(name, new) for name in classes), last])
    return made


def _told_beside(plan: Plan, parent: Parent) -> dict[str, Tensor]:
    """Return the parent's weights for a network that is told another vector or image, or the length of its steps.

    A layer that tells what the new network is not told is left out: the parent does without it when it is not told. An
    attribute keeps its columns, known by its name; an image of another kind is told by a new layer.
    """
    weights, before = parent.network.state_dict(), parent.run.recipe
    mine = untrained_layers(plan.network)
    for path, layer in untrained_layers(parent.network).items():
        forgotten = path not in mine and not isinstance(layer, Span)  # a step of no length is told all the same
        other = path.endswith(".image") and before.data.condition != plan.recipe.data.condition
        if forgotten or other:
            weights = {name: value for name, value in weights.items() if not name.startswith(f"{path}.")}
        elif path.endswith(".vector") and before.shape is not None:
            known, asked = ([name for name, *_ in shape.attributes] for shape in (before.shape, plan.shape))
            weights[f"{path}.weight"] = _columns(weights[f"{path}.weight"], known, asked)
    return weights


def _columns(weight: Tensor, known: list[str], asked: list[str]) -> Tensor:
    """Return the columns of a layer told numbers and whether each was told, for other numbers: zero for a new one."""
    by_name = dict(zip(known, weight.unflatten(1, (2, -1)).unbind(2)))
    new = weight.new_zeros(len(weight), 2)
    return torch.stack([by_name.get(name, new) for name in asked], 2).flatten(1)


def _misfit(
    recipe: Recipe, parent: Parent, mine: Mapping[str, tuple[int, ...]], theirs: Mapping[str, tuple[int, ...]]
) -> str:
    """Return why the parent's weights do not fit, and what to set."""
    run, name = parent.run, next(n for n in [*mine, *theirs] if mine.get(n) != theirs.get(n))
    told = _text(run.recipe.shape), _text(recipe.shape)
    if run.recipe.network != recipe.network:
        remedy = f"Set network to {run.recipe.network}."
    elif told[0] != told[1]:
        remedy = (
            f"It is a model of {told[0]}, and this recipe's data is {told[1]}: give it data of that shape"
            + ("" if label_tables(parent.network) else " and those classes, for its table of labels cannot grow")
            + ", or begin afresh with train.start=none."
        )
    else:
        remedy = f"Set data.augment to {run.recipe.data.augment:g}."
    return (
        f"The network of {run.path} has other weights than this recipe's ({name}: {theirs.get(name, 'none')} there, "
        f"{mine.get(name, 'none')} here). {remedy}"
    )


def _text(shape: Shape | None) -> str:
    if shape is None:
        return "images of no known shape"
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
    found = {"data": data.content_hash, "indices": data.index_hash, "rule": data.rule}
    found |= content_of(data, bool(recipe.data.labels))
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
    if "train.start" in changed:
        began = before.recipe.train.start or "none"
        raise RecipeError(
            f"{folder} began with train.start={began}, and a run that goes on keeps its beginning. Give it again, or "
            "another --out."
        )
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


def resume(trainer: Steps, folder: Path) -> checkpoint.Checkpoint | None:
    """Take over the newest checkpoint of a run that fits; return it, or None if there is none. All ranks call it.

    Arguments:
        trainer: As the run's recipe makes it.
        folder: Directory of the run.

    Raises:
        CheckpointError: If there are checkpoints and none can be taken over.
    """
    if not trainer.ranks.from_first(bool(checkpoint.steps(folder / "checkpoints"))):
        return None
    fits = _check_fits(trainer.tensors(), trainer.recipe)
    found = checkpoint.latest_of(trainer.ranks, folder / "checkpoints", fits)
    if found is None:
        return None
    try:
        trainer.load(_taken_over(found, trainer.recipe))
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        told = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else error}"
        raise checkpoint.CheckpointError(
            f"{found.path} cannot be taken over by this recipe ({told}). Give another --out; train.start=RUN begins a "
            "run from another's weights."
        ) from error
    return found


def _taken_over(saved: checkpoint.Checkpoint, recipe: Recipe) -> checkpoint.Checkpoint:
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


def _check_fits(wanted: Mapping[str, Mapping[str, Tensor]], recipe: Recipe) -> Callable[[checkpoint.Checkpoint], None]:
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
