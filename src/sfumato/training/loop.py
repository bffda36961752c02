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
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import torch
from tqdm import tqdm

from sfumato.core.find import find
from sfumato.processes.machine import default_device, describe, keep_freed_memory
from sfumato.processes.ranks import join, others_may_end
from sfumato.runs import checkpoint
from sfumato.runs.check import check
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe, Train
from sfumato.runs.run import Run, resolve, training_data
from sfumato.training.ema import Averages
from sfumato.training.fit_memory import compiles
from sfumato.training.guard import Diverged, Signals
from sfumato.training.hooks import Hook, RunContext, StepTaken, hooks_of
from sfumato.training.replicas import check_shared
from sfumato.training.start_from import check_resumes, starting_weights, trim_log
from sfumato.training.steps import Steps
from sfumato.training.trainers import trainer_of

RECORDS = 50  # in the log of a run, at least, unless train.log_every is set
ASIDE = 0.1  # of a budget of minutes: the most that sheets and scores take


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
    began: float | None = None,
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
        began: When the command began (time.monotonic), from which a budget of minutes counts; now unless given.

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
    began = time.monotonic() if began is None else began
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
            check_resumes(folder, recipe, fingerprint, allow)
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
        trim_log(folder / "metrics.jsonl", trainer.step)
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
    trackers = tuple(find("tracker", name)(folder, recipe) for name in (recipe.train.track if ranks.first else ()))
    context = RunContext(folder, root, fingerprint, trackers, on_sheet)
    hooks = hooks_of(trainer, context)
    metrics = folder / "metrics.jsonl" if ranks.first else os.devnull
    with Signals() as signals, others_may_end(), open(metrics, "a") as log, ExitStack() as ending:
        for tracker in trackers:
            ending.callback(tracker.close)
        _Loop(trainer, context, hooks, log, signals, quiet).go(began)
    return Run(folder, recipe, about)


class _Loop:
    """Take steps until the budget is spent; log, call hooks, save and go back between them.

    Arguments:
        trainer: Takes the steps.
        context: Directory and watchers of the run.
        hooks: Called after every step.
        log: File of the records.
        signals: Signals received so far.
        quiet: Whether to show no progress bar.
    """

    def __init__(
        self, trainer: Steps, context: RunContext, hooks: list[Hook], log: TextIO, signals: Signals, quiet: bool
    ) -> None:
        self.trainer, self.context, self.hooks, self.log, self.signals = trainer, context, hooks, log, signals
        self.checkpoints = context.folder / "checkpoints"
        self.start = self.saved_at = (
            time.monotonic()
        )  # start: later by what hooks took, unless the budget is in minutes
        self.rolled_back = False
        train = trainer.recipe.train
        self.seconds = None if train.minutes is None else 60 * train.minutes
        self.aside = 0.0  # seconds that hooks took so far
        clocked = self.seconds is not None
        self.bar = tqdm(
            total=round(self.seconds) if self.seconds is not None else train.images,
            initial=round(trainer.elapsed) if clocked else trainer.seen,
            unit="s" if clocked else "img",
            unit_scale=not clocked,
            disable=quiet,
            mininterval=0.5,
            smoothing=0.05,
            dynamic_ncols=True,
        )

    def go(self, began: float) -> None:
        """Train until the budget is spent.

        Arguments:
            began: When the run's preparation began; it counts against a budget of minutes.

        Raises:
            Diverged: If training is not finite and a rollback did not help.
            Interrupted: After a signal to any process, with everything saved.
        """
        trainer, ranks, train = self.trainer, self.trainer.ranks, self.trainer.recipe.train
        follows = self.seconds is not None or train.log_every == Train.log_every  # the log follows the budget
        if self.seconds is not None:
            self.start = began
        with self.bar:
            self.bar.refresh()
            gone = 0.0 if self.seconds is None else time.monotonic() - began
            (spent,) = ranks.largest(trainer.spent(gone + self.reserve))
            # of what preparation has left of minutes; of images always the same, so that a resumed log is no other one
            parts = RECORDS if self.seconds is None else round(RECORDS / max(0.02, 1 - spent))
            position, ready, pace = trainer.seen, time.monotonic(), 0.0
            while spent < 1 or not trainer.step:  # however short the budget, a run is one step at least
                first, before = trainer.seen, spent
                good = trainer.advance(spent)
                if not good and trainer.watch.hopeless:
                    self._go_back()
                now = time.monotonic()
                self._show(first, now)
                due = now - self.saved_at >= 60 * train.save_every
                # clocks and signals differ between ranks: what one says, all do
                spent, signal, save_now = ranks.largest(
                    trainer.spent(now - self.start + self.reserve), self.signals.received or 0, due
                )
                finished = spent >= 1
                pace = (now - ready - self.aside) / max(1, trainer.seen - position)
                taken = StepTaken(first, trainer.seen, before, spent, bool(signal), hurried=self.hurried, pace=pace)
                if finished or taken.passed(train.log_every) or (follows and taken.passed_part(parts)):
                    self._record(now - self.start, before)
                if not finished:
                    self._call_hooks(taken)
                if signal or finished or save_now:
                    self._save()
                if signal and not finished:
                    if ranks.first:
                        tqdm.write(f"Signal {signal:.0f}: saved at {trainer.seen:,} images; the same command resumes.")
                    raise Interrupted(128 + int(signal))
        self._call_hooks(StepTaken(trainer.seen, trainer.seen, spent, spent, finished=True, pace=pace))

    @property
    def reserve(self) -> float:
        """Seconds of a budget of minutes that are kept for what hooks do at the end."""
        return 0.0 if self.seconds is None else ASIDE / 2 * self.seconds

    @property
    def hurried(self) -> bool:
        """Whether the hooks have had what is theirs of a budget of minutes before the end."""
        return self.seconds is not None and self.aside > ASIDE / 2 * self.seconds

    def _show(self, first: int, now: float) -> None:
        """Move the bar: by images, or by seconds where those are the budget."""
        if self.seconds is None:
            self.bar.update(self.trainer.seen - first)
            return
        gone = min(self.trainer.elapsed + now - self.start, self.seconds)
        self.bar.update(max(0, int(gone) - self.bar.n))

    def _go_back(self) -> None:
        """Return to the last checkpoint, once; its weights then meet other samples than before."""
        trainer, watch = self.trainer, self.trainer.watch
        found = checkpoint.latest_of(trainer.ranks, self.checkpoints)
        if self.rolled_back or found is None:
            raise Diverged(
                f"Loss or gradient was not finite at {watch.where}, {watch.run} steps in a row ({watch.total} in all). "
                "Lower the learning rate, clip gradients, or use fp32."
            )
        self.rolled_back = True
        if trainer.ranks.first:
            tqdm.write(f"Not finite at {watch.where}: going back to {found.path.name}.")
        position = trainer.seen
        trainer.load(found)
        trainer.seen = position
        watch.forgive()

    def _record(self, seconds: float, spent: float) -> None:
        """Write a record of the steps since the last one to the log and the trackers."""
        record = self.trainer.record(seconds, spent)
        self.log.write(json.dumps(record) + "\n")
        self.log.flush()
        for tracker in self.context.trackers:
            tracker.record(record)
        images = {} if self.seconds is None else {"images": f"{self.trainer.seen:,}"}
        self.bar.set_postfix(**images, loss=f"{record['loss']:.4f}", refresh=False)

    def _call_hooks(self, taken: StepTaken) -> None:
        """Call every hook: off the clock, unless the budget is in minutes."""
        began, before = time.monotonic(), self.hurried
        for hook in self.hooks:
            hook(self.trainer, taken)
        took = time.monotonic() - began
        if self.seconds is None:
            self.start += took
            return
        (took,) = self.trainer.ranks.largest(took)
        self.aside += took
        if self.hurried and not before and not taken.finished and not self.bar.disable:
            tqdm.write(f"Sheets and scores have had {ASIDE / 2:.0%} of the minutes: the next ones come at the end.")

    def _save(self) -> None:
        """Write a checkpoint; all ranks call it, and none leaves before it is written."""
        trainer = self.trainer
        tensors = trainer.tensors()  # of all ranks, so all call it; what the device has settled is known afterwards
        state = {
            "seen": trainer.seen,
            "step": trainer.step,
            "elapsed": trainer.elapsed + time.monotonic() - self.start,
            "skipped": trainer.watch.total,
            "recipe": trainer.recipe.to_json(),
        }
        if trainer.ranks.first:
            keep, fingerprint = trainer.recipe.train.keep, self.context.fingerprint
            checkpoint.save(self.checkpoints, trainer.step, tensors, state, keep=keep, fingerprint=fingerprint)
        trainer.ranks.meet()
        self.saved_at = time.monotonic()
