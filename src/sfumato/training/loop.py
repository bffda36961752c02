"""The training loop: from a recipe to a run.

Position p counts training images. Every random number of a run is addressed by (seed, p), so a run is described by
its weights, its optimiser and one integer; resuming continues it bit for bit on a CPU, at any moment of an epoch. The
step itself is the trainer's (`training.trainers`); here are budget, log, checkpoints, signals and going back after
NaN. What else a run does is a hook (`training.hooks`): hooks come before the save, so a
crash between repeats them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import torch

from sfumato.core.errors import printable
from sfumato.core.find import find
from sfumato.core.writing import replace_json
from sfumato.data.dataset import Dataset
from sfumato.data.streaming import Stream
from sfumato.evaluation.real import most_of
from sfumato.networks._layers import fewer_products_pay
from sfumato.processes.machine import computing_on, default_device, describe, give_back_freed_memory
from sfumato.processes.ranks import LaunchError, Ranks, join, others_may_end
from sfumato.progress import bar_of, say
from sfumato.runs import checkpoint
from sfumato.runs.check import check
from sfumato.runs.kinds import kind_of
from sfumato.runs.labelled import adopted, keep
from sfumato.runs.lock import locked
from sfumato.runs.part import option
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe, Train
from sfumato.runs.records import trim_records
from sfumato.runs.resolve import resolve, training_data
from sfumato.runs.run import Run
from sfumato.training.ema import Averages
from sfumato.training.fit_memory import compiles
from sfumato.training.guard import Diverged, Signals
from sfumato.training.hooks import Hook, RunContext, StepTaken, hooks_of
from sfumato.training.latents import Encoded, encoded, standardised, with_encoder
from sfumato.training.start_from import (
    check_resumes,
    check_teacher,
    fingerprint_of,
    inherited,
    own_recipe,
    parent_of,
    resume,
    starting_weights,
)
from sfumato.training.steps import Steps
from sfumato.training.trainers import trainer_of

BY_THE_CLOCK = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} s{desc}{postfix}"  # the bar of a budget of minutes
RECORDS = 50  # in the log of a run, at least, unless a person has set train.log_every
LONG = 100_000  # images from which on it is worth while to hear of a faster way
ASIDE = 0.05  # of a budget of minutes: the most that sheets and scores take on the way, and again at the end
DRAWN = 1.0  # seconds of hooks from which on something was drawn: what that freed is given back


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
    watchers: Sequence[Callable[[Steps, RunContext], Hook]] = (),
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
        watchers: Makers of further hooks of this training; what one of them raises ends it.

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
    began, reserve = time.monotonic() if began is None else began, reserve_of(recipe.train)
    folder = Path(folder)
    ranks, device = join(device if device is not None else default_device())
    quiet = quiet or not ranks.first
    check_shared(recipe, ranks)
    computing_on(device)
    recipe = with_encoder(recipe, folder)
    before = own_recipe(folder)
    parent = parent_of(recipe) if before is None else None
    if before is not None:
        recipe = adopted(recipe, before)
    elif parent is not None:
        before = parent.run.recipe
    planned = plan(replace(recipe, sample=replace(recipe.sample, classifier=None)))  # its classes are not known yet
    if recipe.shape is not None:  # then also before the data is read
        check(planned)
    with ranks.in_turn():
        data = training_data(recipe, root)
    give_back_freed_memory()  # files and pixels of what was left out
    asked, recipe = recipe, resolve(recipe, data)
    if before is not None:
        recipe = inherited(recipe, asked, before)
    planned = planned.resolved(recipe)
    check(planned)
    trained_on: Dataset | Stream | Encoded = data
    if recipe.latent is not None:
        with ranks.in_turn():
            trained_on = of_images = encoded(recipe, data, folder, device)
        recipe = standardised(recipe, of_images)
        planned = planned.resolved(recipe)
    if parent is not None:
        check_teacher(recipe, parent, data)
    start = None if parent is None else starting_weights(planned, parent)
    fingerprint = fingerprint_of(folder, recipe, data, start)
    with ExitStack() as ending:
        with ranks.in_turn():
            if ranks.first:
                ending.enter_context(locked(folder))
                check_resumes(folder, recipe, fingerprint, allow)
        trainer = trainer_of(planned, trained_on, device, ranks)
        facts = describe(device) | {"processes": ranks.world, "compiled": compiles(planned, device, ranks.world)}
        about = {"fingerprint": fingerprint, "floor_of": most_of(data, bool(recipe.data.labels)), "machine": facts}
        saved = resume(trainer, folder)
        if saved is None and start is not None:
            held, own = trainer.averages.held, trainer.network.state_dict()
            start = {name: held.divided(value, own[name]) for name, value in start.items()}
            trainer.network.load_state_dict(own | start)
            trainer.averages = Averages(trainer.network, recipe.ema, held)
        if not quiet:
            _announce(trainer, data, asked, facts, began, resuming=saved is not None)
        (spent,) = ranks.largest(trainer.spent(reserve))
        if spent >= 1:  # nothing is trained: hooks add what is missing, and every file stays as it is
            over = StepTaken(trainer.seen, trainer.seen, spent, spent, finished=True, anew=False)
            for hook in hooks_of(trainer, RunContext(folder, root, fingerprint, (), on_sheet)):
                hook(trainer, over)
            return Run(folder, recipe, about)
        whole = {"recipe": recipe.to_json(), **about}
        if ranks.first:
            keep(recipe, folder)
            trim_records(folder / "metrics.jsonl", trainer.step)
            if saved is None:  # else the recipe is that of the checkpoints until there is one of this recipe
                replace_json(folder / "recipe.json", whole)
        trackers = tuple(find("tracker", name)(folder, recipe) for name in (recipe.train.track if ranks.first else ()))
        for tracker in trackers:
            ending.callback(tracker.close)
        context = RunContext(folder, root, fingerprint, trackers, on_sheet)
        hooks = [*hooks_of(trainer, context), *(make(trainer, context) for make in watchers)]
        metrics = folder / "metrics.jsonl" if ranks.first else os.devnull
        with Signals(quiet) as signals, others_may_end(), open(metrics, "a") as log:
            _Loop(trainer, context, hooks, log, signals, quiet, whole).go(began)
    return Run(folder, recipe, about)


def _announce(
    trainer: Steps, data: Dataset | Stream, asked: Recipe, facts: dict[str, Any], began: float, *, resuming: bool
) -> None:
    """Say what is about to be trained, on what and how, and what of the data or the recipe is not as it was asked."""
    recipe, wanted, chosen = trainer.recipe, asked.evaluate.extractor, trainer.recipe.evaluate.extractor
    notes = [f"data left out: {reason}" for reason in data.left_out]
    if chosen != wanted:
        notes.append(f"evaluate.extractor={wanted} does not take images of {data.shape}; scores use {chosen}")
    plain = trainer.device.type == "cpu" and recipe.train.precision == "bf16"
    if plain and recipe.train.images >= LONG and fewer_products_pay(trainer.network):
        notes.append(
            "train.precision=bf16-winograd is faster on this processor and rounds more: see the FAQ of the docs"
        )
    for note in notes:
        say(f"note: {printable(note)}")
    parameters = sum(p.numel() for p in trainer.network.parameters())
    verb = f"resuming at {trainer.seen:,} images" if resuming else "starting"
    ranks, device = trainer.ranks, trainer.device
    say(
        f"{recipe.name}: {verb}; {len(data):,} images of {'x'.join(map(str, data.shape))}, {parameters:,} "
        f"parameters, batch {recipe.train.batch}, {recipe.train.precision} on "
        f"{device if ranks.world == 1 else f'{ranks.world} x {device.type}'} "
        f"({facts['kernels']} kernels, {'compiled' if facts['compiled'] else 'not compiled'}; "
        f"{time.monotonic() - began:.1f} s to get ready)"
    )


def check_shared(recipe: Recipe, ranks: Ranks) -> None:
    """Refuse a recipe whose batch cannot be cut into shares.

    Raises:
        LaunchError: Naming what needs the whole batch.
    """
    if ranks.world == 1:
        return
    ranks.rounds(0, recipe.train.batch, recipe.train.micro)  # refuses a batch of fewer images than ranks
    if recipe.train.shard:
        batch, micro = recipe.train.batch, recipe.train.micro
        if len({len(Ranks(r, ranks.world).rounds(0, batch, micro)) for r in range(ranks.world)}) > 1:
            raise LaunchError(
                f"train.shard=true needs as many rounds on every process, and train.batch={batch} in rounds of "
                f"train.micro={micro} does not give {ranks.world} processes that. Set a train.batch that they divide."
            )
    whole = {
        f"objective={recipe.objective.name} trains two networks that meet in every step, which": kind_of(recipe).whole,
        "objective.coupling=ot pairs images with noises over the batch and": option(recipe.objective, "coupling")
        == "ot",
    }
    for what, found in whole.items():
        if found:
            raise LaunchError(f"{what} needs the whole batch in one place. Start one process, without torchrun.")


def reserve_of(train: Train) -> float:
    """Return the seconds of a budget of minutes that are kept for what hooks do at the end; 0 of other budgets."""
    return 0.0 if train.minutes is None else ASIDE * 60 * train.minutes


class _Loop:
    """Take steps until the budget is spent; log, call hooks, save and go back between them.

    Arguments:
        trainer: Takes the steps.
        context: Directory and watchers of the run.
        hooks: Called after every step.
        log: File of the records.
        signals: Signals received so far.
        quiet: Whether to show no progress bar.
        about: Content of recipe.json, written with the first checkpoint.
    """

    def __init__(
        self,
        trainer: Steps,
        context: RunContext,
        hooks: list[Hook],
        log: TextIO,
        signals: Signals,
        quiet: bool,
        about: dict[str, Any],
    ) -> None:
        self.trainer, self.context, self.hooks, self.log, self.signals = trainer, context, hooks, log, signals
        self.about: dict[str, Any] | None = about  # None once it is written
        self.checkpoints = context.folder / "checkpoints"
        self.start = self.saved_at = time.monotonic()  # start: later by what hooks took of images
        self.rolled_back = False
        train = trainer.recipe.train
        self.seconds = None if train.minutes is None else 60 * train.minutes
        self.aside = 0.0  # seconds that hooks took so far
        how: dict[str, Any] = {"initial": trainer.seen, "unit_scale": True}
        if self.seconds is not None:
            how = {"initial": round(trainer.elapsed), "bar_format": BY_THE_CLOCK}
        total = train.images if self.seconds is None else round(self.seconds)
        self.bar = bar_of(total, "img", quiet=quiet, smoothing=0.05, delay=0.0, **how)

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
        reserve = reserve_of(train)
        with self.bar:
            self.bar.refresh()
            gone = 0.0 if self.seconds is None else time.monotonic() - began
            (spent,) = ranks.largest(trainer.spent(gone + reserve))
            # of what preparation has left of minutes; of images always the same, so that a resumed log is no other one
            parts = RECORDS if self.seconds is None else round(RECORDS / max(0.02, 1 - spent))
            position, ready, pace, finished = trainer.seen, time.monotonic(), 0.0, False
            while not finished:
                first, before = trainer.seen, spent
                good = trainer.advance(min(spent, 1.0))
                if not good and trainer.watch.hopeless:
                    self._go_back()
                now = time.monotonic()
                self._show(first, now)
                due = now - self.saved_at >= 60 * train.save_every
                # clocks and signals differ between ranks: what one says, all do
                spent, signal, save_now = ranks.largest(
                    trainer.spent(now - self.start + reserve), self.signals.received or 0, due
                )
                pace = (now - ready - self.aside) / max(1, trainer.seen - position)
                taken = StepTaken(
                    first, trainer.seen, before, spent, bool(signal), self.hurried, pace=pace, stop=self._stop
                )
                if spent >= 1 or taken.passed(train.log_every) or (follows and taken.passed_part(parts)):
                    self._record(now - self.start, before)
                # beyond the budget, if need be, until a step shows that all is well
                finished = good and spent >= 1 and trainer.watch.run == 0
                if not finished:
                    self._call_hooks(taken)
                    if ranks.world == 1:  # hooks take long: no other step before an answer
                        signal = signal or self.signals.received or 0
                saved = good and (signal or finished or save_now) and self._save(leaving=bool(signal) or finished)
                if finished and not saved:
                    raise Diverged(self._trouble())
                if signal and not finished:
                    if ranks.first:
                        kept = f"saved at {trainer.seen:,} images" if saved else "not saved, since not all is finite"
                        say(f"Signal {signal:.0f}: {kept}; the same command resumes.")
                    raise Interrupted(128 + int(signal))
        self._call_hooks(StepTaken(trainer.seen, trainer.seen, spent, spent, finished=True, pace=pace, stop=self._stop))
        if self.signals.received and trainer.ranks.world == 1:
            say(f"Signal {self.signals.received}: the training is done and saved.")
            raise Interrupted(128 + self.signals.received)

    def _stop(self) -> str | None:
        """Say why what hooks make is left: after a signal, or when the minutes are over."""
        if self.signals.received:
            return "a signal asks to leave."
        if self.seconds is not None and self.trainer.spent(time.monotonic() - self.start) >= 1:
            return "the minutes are over. `sfumato sample` draws one, `sfumato evaluate` scores."
        return None

    @property
    def hurried(self) -> bool:
        """Whether the hooks have had what is theirs of a budget of minutes before the end."""
        return self.seconds is not None and self.aside > ASIDE * self.seconds

    def _show(self, first: int, now: float) -> None:
        """Move the bar: by images, or by seconds where those are the budget."""
        if self.seconds is None:
            self.bar.update(self.trainer.seen - first)
            return
        gone = min(self.trainer.elapsed + now - self.start, self.seconds)
        self.bar.set_description_str(f", {self.seconds - gone:.0f} s left", refresh=False)
        self.bar.update(max(0, int(gone) - self.bar.n))

    def _go_back(self) -> None:
        """Return to the last checkpoint, once; its weights then meet other samples than before.

        Counts go on: images, steps and seconds were spent, and skipped steps stay skipped.
        """
        trainer, watch = self.trainer, self.trainer.watch
        trouble = self._trouble()
        counts = trainer.state()
        found = None if self.rolled_back else resume(trainer, self.context.folder)
        if found is None:
            raise Diverged(trouble)
        self.rolled_back = True
        trainer.take_counts(counts)
        watch.forgive()
        if trainer.ranks.first:
            say(f"{trouble} Going back to {found.path.name}.")

    def _trouble(self) -> str:
        """Return what is not finite, and what to do; all ranks call it and the first one's tensors decide."""
        trainer, watch = self.trainer, self.trainer.watch
        where = watch.where or f"step {trainer.step}"
        counted = f"{watch.run} steps in a row ({watch.total} in all)"
        tensors = trainer.tensors()  # of all ranks
        named = checkpoint.not_finite(tensors) if trainer.ranks.first else ""
        wrong = trainer.ranks.from_first(named) or "Loss, gradient or norm of the weights"
        return (
            f"{wrong} was not finite at {where}, {counted}. What was saved last is whole. Lower the learning rate, "
            "clip gradients, or use fp32."
        )

    def _record(self, seconds: float, spent: float) -> None:
        """Write a record of the steps since the last one to the log and the trackers."""
        record = self.trainer.record(seconds, spent)
        self.log.write(json.dumps(record) + "\n")
        self.log.flush()
        for tracker in self.context.trackers:
            tracker.record(record)
        images = {} if self.seconds is None else {"images": f"{self.trainer.seen:,}"}
        self.bar.set_postfix(**images, loss="-" if record["loss"] is None else f"{record['loss']:.4f}", refresh=False)

    def _call_hooks(self, taken: StepTaken) -> None:
        """Call every hook: off the clock, unless the budget is in minutes."""
        began, before = time.monotonic(), self.hurried
        for hook in self.hooks:
            hook(self.trainer, taken)
        took = time.monotonic() - began
        if took > DRAWN:
            give_back_freed_memory()
        if self.seconds is None:
            self.start += took
            return
        (took,) = self.trainer.ranks.largest(took)
        self.aside += took
        if self.hurried and not before and not taken.finished and not self.bar.disable:
            say(f"Sheets and scores have had {ASIDE:.0%} of the minutes: the next ones come at the end.")

    def _save(self, leaving: bool = False) -> bool:
        """Write a checkpoint, unless something in it is not finite; return whether it was written.

        After a step that was not finite nobody knows whether the weights are good, so the save waits for one that is.
        If a tensor is not finite, the run goes back to the last checkpoint. All ranks call it, and none leaves before
        the checkpoint is written.

        Arguments:
            leaving: Whether the run ends here; then it does not go back.

        Raises:
            Diverged: If something is not finite and going back did not help.
        """
        trainer = self.trainer
        tensors = trainer.tensors()  # of all ranks, so all call it; what the device has settled is known afterwards
        if trainer.watch.run:
            return False
        first = trainer.ranks.first
        if trainer.ranks.from_first(bool(first and checkpoint.not_finite(tensors))):
            if not leaving:
                self._go_back()
            return False
        state = trainer.state(time.monotonic() - self.start)
        if first:
            keep, fingerprint = trainer.recipe.train.keep, self.context.fingerprint
            checkpoint.save(self.checkpoints, trainer.step, tensors, state, keep=keep, fingerprint=fingerprint)
            checkpoint.drop_after(self.checkpoints, trainer.step)
            if self.about is not None:
                replace_json(self.context.folder / "recipe.json", self.about)
                self.about = None
        trainer.ranks.meet()
        self.saved_at = time.monotonic()
        return True
