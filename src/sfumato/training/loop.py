"""The training loop: from a recipe to a run.

Position p counts training images. Every random number of a run is addressed by (seed, p), so a run is described by
its weights, its optimiser and one integer; resuming continues it bit for bit on a CPU, at any moment of an epoch. The
step itself is the trainer's (`training.trainers`); here are budget, log, checkpoints, signals and going back after
NaN. What else a run does is a hook (`training.hooks`): hooks come before the save, so a
crash between repeats them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import torch
from tqdm import tqdm

from sfumato.core.find import find
from sfumato.processes.machine import default_device, describe, keep_freed_memory
from sfumato.processes.ranks import join, others_may_end
from sfumato.runs import checkpoint
from sfumato.runs import recipe as recipes
from sfumato.runs.check import check
from sfumato.runs.idle import differences
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe, RecipeError
from sfumato.runs.run import Run, resolve, training_data
from sfumato.training.ema import Averages
from sfumato.training.fit_memory import compiles
from sfumato.training.guard import Diverged, Signals
from sfumato.training.hooks import Hook, Moment, Place, hooks_of
from sfumato.training.replicas import check_shared
from sfumato.training.start_from import starting_weights
from sfumato.training.trainers import Steps, trainer_of

# Fields that say how a run is watched, not what it computes; they may differ on resume.
FREE = (
    *("train.log_every", "train.save_every", "train.keep", "train.sheet_every", "train.micro", "train.evaluate_every"),
    *("train.shard", "train.compile", "train.track", "ema.snapshots", "sample", "evaluate"),
    *("data.stream", "data.workers"),
)


class Interrupted(SystemExit):
    """The loop was asked to stop by a signal and has saved; the exit code is 128 + the signal's number."""


def train(
    recipe: Recipe,
    folder: Path | str,
    *,
    root: Path | str | None = None,
    device: torch.device | str | None = None,
    allow: tuple[str, ...] = (),
    quiet: bool = False,
    on_sheet: Callable[[Path], None] | None = None,
) -> Run:
    """Train a recipe into a run directory, continuing what is there.

    Started by `torchrun` it runs in every process; they divide each batch among them, and the first writes the files.

    Arguments:
        recipe: What to train.
        folder: The run's directory. If it holds checkpoints of the same recipe and data, training resumes.
        root: Data root; None for SFUMATO_DATA or the cache.
        device: None for the best at hand.
        allow: Recipe fields that may differ from the interrupted run's, e.g. ("train.images",).
        quiet: No progress bar and no lines.
        on_sheet: Told of every sample sheet written.

    Returns:
        The finished run.

    Raises:
        RecipeError: If parts of the recipe cannot work together, or the directory holds a run of another recipe or
            dataset; the fields are listed.
        LaunchError: If the processes cannot share this run.
        RankLost: If another process of the run has ended.
        Diverged: If training is not finite and a rollback did not help.
        Interrupted: After a signal to any process, with everything saved.
    """
    began = time.monotonic()
    folder = Path(folder)
    ranks, device = join(device if device is not None else default_device())
    quiet = quiet or not ranks.first
    check_shared(recipe, ranks)
    if device.type == "cpu":
        keep_freed_memory()
    planned = plan(recipe)
    if recipe.shape is not None:  # then also before the data is read; class names are not known yet
        planned = plan(dataclasses.replace(recipe, sample=dataclasses.replace(recipe.sample, classifier=None)))
        check(planned)
    with ranks.in_turn():
        data = training_data(recipe, root)
    recipe = resolve(recipe, data)
    planned = planned.resolved(recipe)
    check(planned)
    begun = bool(checkpoint.steps(folder / "checkpoints"))
    start = None if recipe.train.start is None or begun else starting_weights(planned, recipe.train.start)
    fingerprint = {"data": data.content_hash, "indices": data.index_hash, "rule": data.rule}
    with ranks.in_turn():
        if ranks.first:
            _refuse_other_run(folder, recipe, fingerprint, allow)
            folder.mkdir(parents=True, exist_ok=True)
    trainer = trainer_of(planned, data, device, ranks)
    facts = describe(device) | {"processes": ranks.world, "compiled": compiles(planned, device, ranks.world)}
    about = {"fingerprint": fingerprint, "machine": facts}
    if ranks.first:
        checkpoint.replace_json(folder / "recipe.json", {"recipe": recipe.to_json(), **about})
    saved = checkpoint.latest_of(ranks, folder / "checkpoints")
    if saved is not None:
        trainer.load(saved)
    elif start is not None:
        trainer.network.load_state_dict(start)
        trainer.averages = Averages(trainer.network, recipe.ema)
    if ranks.first:
        _trim(folder / "metrics.jsonl", trainer.step)
    if not quiet:
        parameters = sum(p.numel() for p in trainer.network.parameters())
        verb = f"resuming at {trainer.seen:,} images" if saved else "starting"
        tqdm.write(
            f"{recipe.name}: {verb}; {len(data):,} images of {'x'.join(map(str, data.shape))}, {parameters:,} "
            f"parameters, batch {recipe.train.batch}, {recipe.train.precision} on "
            f"{device if ranks.world == 1 else f'{ranks.world} x {device.type}'} "
            f"({facts['kernels']} kernels, {'compiled' if facts['compiled'] else 'not compiled'}; "
            f"{time.monotonic() - began:.1f} s to get ready)"
        )
    metrics = folder / "metrics.jsonl" if ranks.first else os.devnull
    named = recipe.train.track if ranks.first else ()
    trackers = tuple(find("tracker", name)(folder, recipe) for name in named)
    place = Place(folder, root, fingerprint, trackers, on_sheet)
    hooks = hooks_of(trainer, place)
    with Signals() as signals, others_may_end(), open(metrics, "a") as log, ExitStack() as ending:
        for tracker in trackers:
            ending.callback(tracker.close)
        _loop(trainer, place, hooks, log, signals, quiet)
    return Run(folder, recipe, about)


def _loop(trainer: Steps, place: Place, hooks: list[Hook], log: TextIO, signals: Signals, quiet: bool) -> None:
    train, ranks, folder = trainer.recipe.train, trainer.ranks, place.folder
    start = time.monotonic()
    saved_at = start
    rolled_back = False
    bar = tqdm(
        total=None if train.minutes is not None else train.images,
        initial=trainer.seen,
        unit="img",
        unit_scale=True,
        disable=quiet,
        mininterval=0.5,
        smoothing=0.05,
        dynamic_ncols=True,
    )

    def save() -> None:
        nonlocal saved_at
        folder_ = folder / "checkpoints"
        tensors = trainer.tensors()  # of all ranks, so all call it; what the device has settled is known afterwards
        state = {
            "seen": trainer.seen,
            "step": trainer.step,
            "elapsed": trainer.elapsed + time.monotonic() - start,
            "skipped": trainer.watch.total,
            "recipe": trainer.recipe.to_json(),
        }
        if ranks.first:
            checkpoint.save(folder_, trainer.step, tensors, state, keep=train.keep, fingerprint=place.fingerprint)
        ranks.meet()  # nobody leaves before it is written
        saved_at = time.monotonic()

    with bar:
        bar.refresh()
        (spent,) = ranks.largest(trainer.spent(0.0))
        while spent < 1:
            first = trainer.seen
            good = trainer.advance(spent)
            if not good and trainer.watch.hopeless:
                where = trainer.watch.where
                found = checkpoint.latest_of(ranks, folder / "checkpoints")
                if rolled_back or found is None:
                    raise Diverged(
                        f"Loss or gradient was not finite at {where}, {trainer.watch.run} steps in a row "
                        f"({trainer.watch.total} in all). Lower the learning rate, clip gradients, or use fp32."
                    )
                rolled_back = True
                if ranks.first:
                    tqdm.write(f"Not finite at {where}: going back to {found.path.name}.")
                position = trainer.seen
                trainer.load(found)
                trainer.seen = position  # the same weights meet other samples
                trainer.watch.forgive()
            bar.update(trainer.seen - first)
            now = time.monotonic()
            due = now - saved_at >= 60 * train.save_every
            # clocks and signals differ between ranks: what one says, all do
            before = spent
            spent, signal, save_now = ranks.largest(trainer.spent(now - start), signals.received or 0, due)
            finished = spent >= 1
            if first // train.log_every != trainer.seen // train.log_every or finished:
                record = trainer.record(now - start, before)
                log.write(json.dumps(record) + "\n")
                log.flush()
                for tracker in place.trackers:
                    tracker.record(record)
                bar.set_postfix(loss=f"{record['loss']:.4f}", refresh=False)
            if not finished:
                watched = time.monotonic()
                for hook in hooks:
                    hook(trainer, Moment(first, trainer.seen, before, spent, leaving=bool(signal)))
                start += time.monotonic() - watched  # the budget is one of training
            if signal or finished or save_now:
                save()
            if signal and not finished:
                if ranks.first:
                    tqdm.write(f"Signal {signal:.0f}: saved at {trainer.seen:,} images; the same command resumes.")
                raise Interrupted(128 + int(signal))
    for hook in hooks:
        hook(trainer, Moment(trainer.seen, trainer.seen, spent, spent, finished=True))


def _refuse_other_run(folder: Path, recipe: Recipe, fingerprint: dict[str, str], allow: tuple[str, ...]) -> None:
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


def _trim(metrics: Path, step: int) -> None:
    """Drop records of steps that a crash lost, so that the log is the one of an uninterrupted run."""
    if not metrics.exists():
        return
    lines = [line for line in _whole_lines(metrics) if json.loads(line)["step"] <= step]
    metrics.write_text("".join(lines))


def _whole_lines(file: Path) -> Iterator[str]:
    for line in file.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            yield line


def shortened(recipe: Recipe, images: int) -> Recipe:
    """Return the recipe with another budget of images."""
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, images=images, minutes=None))
