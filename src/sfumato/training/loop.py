"""The training loop: from a recipe to a run.

Position p counts training images. Every random number of a run is addressed by (seed, p), so a run is described by
its weights, its optimiser and one integer; resuming continues it bit for bit on a CPU, at any moment of an epoch.

A step takes positions p .. p + batch, in rounds of `micro` images whose gradients add up: the batch is part of the
recipe and never an accident of the machine. Then the gradient norm is checked and clipped, the learning rate set, the
optimisers and the averages moved. A step that is not finite changes nothing (`training.guard`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

import torch
from PIL import Image as PILImage
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from sfumato.core import noise
from sfumato.core.images import NonFiniteError, tile
from sfumato.core.level import Level
from sfumato.data.augment import edm_augment
from sfumato.data.dataset import Dataset
from sfumato.data.loader import Loader
from sfumato.objectives import Loss
from sfumato.training import checkpoint
from sfumato.training.assemble import (
    build_denoiser,
    build_model,
    build_network,
    build_objective,
    context_of,
    make,
    trains,
)
from sfumato.training.check import check
from sfumato.training.ema import Averages
from sfumato.training.guard import Diverged, FiniteWatch, Signals
from sfumato.training.machine import default_device, describe, keep_freed_memory
from sfumato.training.recipe import Recipe, RecipeError, differences
from sfumato.training.run import Run, load_data, resolve
from sfumato.training.tally import Tally

# Fields that say how a run is watched, not what it computes; they may differ on resume.
FREE = ("train.log_every", "train.save_every", "train.keep", "train.sheet_every", "train.micro", "sample", "evaluate")


class Interrupted(SystemExit):
    """The loop was asked to stop by a signal and has saved; the exit code is 128 + the signal's number."""


@runtime_checkable
class Memory(Protocol):
    """A draw that remembers losses: it says the weight that its probabilities call for, and is saved with the run."""

    def weight(self, level: Level) -> Tensor:
        """Return the factor of each loss (B,) that leaves the expected loss as under a uniform draw."""
        ...

    def update(self, level: Level, loss: Tensor) -> None:
        """Remember the unweighted losses (B,) of a step."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return what is remembered, for a checkpoint."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned."""
        ...


@contextlib.contextmanager
def seeded(seed: int, position: int, device: torch.device) -> Iterator[None]:
    """Address torch's own generator (dropout) by (seed, position) inside the block; leave it as it was."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(noise.words([position], 1, seed=seed, purpose="dropout")))
        yield


class Trainer:
    """Hold everything that a run's next step depends on.

    Arguments:
        recipe: Resolved.
        data: The training split.
        device: Where to train.
    """

    def __init__(self, recipe: Recipe, data: Dataset, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.network: nn.Module = build_network(recipe, device)
        self.model = build_model(recipe, self.network)
        draw = make(recipe.draw, context_of(recipe))
        self.memory = draw if isinstance(draw, Memory) else None
        self.objective = build_objective(recipe, draw, device)
        self.trained = self.network  # with what the objective has learned numbers of, if any
        if isinstance(self.objective, nn.Module):
            self.trained = nn.ModuleList((self.network, self.objective))
        self.loader = Loader(data, recipe.train.seed, device, flip=recipe.data.flip)
        self.optimizers: list[Optimizer] = make(recipe.train.optimizer, {"network": self.trained})
        self.base_rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]
        self.rate = make(recipe.train.rate, {})
        self.averages = Averages(self.network, recipe.ema)
        self.watch = FiniteWatch(recipe.train.bad_in_a_row)
        self.tally = Tally(device)
        self.seen = 0  # images, counting skipped steps: the position of the next sample
        self.step = 0
        self.elapsed = 0.0  # seconds of training before this process

    def spent(self, now: float) -> float:
        """Return the share of the budget spent after `now` seconds of training in this process."""
        train = self.recipe.train
        if train.minutes is not None:
            return (self.elapsed + now) / (60 * train.minutes)
        return self.seen / train.images

    def advance(self, spent: float) -> bool:
        """Take one step; return whether it was finite, hence taken."""
        batch = self.recipe.train.batch
        micro = min(batch, self.recipe.train.micro or batch)
        taken: list[Loss] = []
        self.trained.train()
        for start in range(self.seen, self.seen + batch, micro):
            x0, label, positions, augment = self._examples(start, min(micro, self.seen + batch - start))
            with seeded(self.recipe.train.seed, start, self.device):
                loss = self.objective(self.model, x0, label, positions, augment)
            (self._weighted(loss).sum() / batch).backward()
            taken.append(loss)
        clip = self.recipe.train.clip
        norm = torch.nn.utils.clip_grad_norm_(self.trained.parameters(), float("inf") if clip is None else clip)
        each = torch.cat([loss.each.detach() for loss in taken])
        good = bool(torch.isfinite(norm) & torch.isfinite(each).all())
        self.seen += batch
        self.step += 1
        self.watch.record(good)
        if good:
            self._set_rates(spent)
            for optimizer in self.optimizers:
                optimizer.step()
            self.averages.update(self.network, self.seen, batch)
            self._note(taken, each, norm)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        return good

    def _examples(self, start: int, count: int) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Return images, labels, positions and augmentation labels of a range of positions."""
        x0, label, positions = self.loader.batch(start, count)
        label = label if self.recipe.data.labels else None
        if not self.recipe.data.augment:
            return x0, label, positions, None
        x0, augment = edm_augment(x0, positions, seed=self.recipe.train.seed, p=self.recipe.data.augment)
        return x0, label, positions, augment

    def _weighted(self, loss: Loss) -> Tensor:
        """Return the loss to minimise per image: weighted where the draw is not uniform."""
        return loss.each if self.memory is None else loss.each * self.memory.weight(loss.level).to(loss.each)

    def _note(self, taken: list[Loss], each: Tensor, norm: Tensor) -> None:
        """Log a step that was taken, and let the draw remember it."""
        level = Level(torch.cat([v.level.alpha for v in taken]), torch.cat([v.level.sigma for v in taken]))
        weighted = torch.cat([self._weighted(loss).detach() for loss in taken])
        parts = {name: torch.cat([loss.parts[name] for loss in taken]) for name in taken[0].parts}
        self.tally.add(each, level.log_snr, norm, weighted=weighted, parts=parts)
        if self.memory is not None:
            self.memory.update(level, each)

    def _set_rates(self, spent: float) -> None:
        factor = self.rate(self.seen - self.recipe.train.batch, spent)
        for optimizer, bases in zip(self.optimizers, self.base_rates):
            for group, base in zip(optimizer.param_groups, bases):
                group["lr"] = base * factor

    def record(self, now: float, spent: float) -> dict[str, Any]:
        """Return a log record of everything since the last one; `now` in seconds of this process."""
        return {
            "step": self.step,
            "images": self.seen,
            **self.tally.take(),
            "lr": self.optimizers[0].param_groups[0]["lr"],
            "skipped": self.watch.total,
            "seconds": round(self.elapsed + now, 2),
            "spent": round(spent, 6),
        }

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return every tensor of the state, grouped by file."""
        groups = {"network": dict(self.network.state_dict())}
        groups |= {f"ema-{name}": weights for name, weights in self.averages.weights.items()}
        for i, optimizer in enumerate(self.optimizers):
            flat: dict[str, Tensor] = {}
            for key, entry in optimizer.state_dict()["state"].items():
                flat |= {f"{key}.{name}": torch.as_tensor(value) for name, value in entry.items()}
            groups[f"optimizer-{i}"] = flat
        groups["tally"] = self.tally.tensors()
        if self.memory is not None:
            groups["draw"] = self.memory.state()
        if isinstance(self.objective, nn.Module):
            groups["objective"] = dict(self.objective.state_dict())
        return groups

    def load(self, saved: checkpoint.Checkpoint) -> None:
        """Take over the state of a checkpoint."""
        self.network.load_state_dict(saved.tensors["network"])
        for name, weights in self.averages.weights.items():
            for key, value in saved.tensors[f"ema-{name}"].items():
                weights[key].copy_(value)
        for i, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in saved.tensors[f"optimizer-{i}"].items():
                number, name = key.split(".", 1)
                state.setdefault(int(number), {})[name] = value.clone()
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self.tally.load(saved.tensors["tally"])
        if self.memory is not None:
            self.memory.load(saved.tensors["draw"])
        if isinstance(self.objective, nn.Module):
            self.objective.load_state_dict(saved.tensors["objective"])
        self.seen, self.step = saved.state["seen"], saved.state["step"]
        self.elapsed, self.watch.total = saved.state["elapsed"], saved.state["skipped"]


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
        Diverged: If training is not finite and a rollback did not help.
        Interrupted: After a signal, with everything saved.
    """
    began = time.monotonic()
    folder = Path(folder)
    device = torch.device(device) if device is not None else default_device()
    if device.type == "cpu":
        keep_freed_memory()
    if recipe.shape is not None:  # then also before the data is read; class names are not known yet
        check(dataclasses.replace(recipe, sample=dataclasses.replace(recipe.sample, classifier=None)))
    data = load_data(recipe, "train", root)
    recipe = resolve(recipe, data)
    check(recipe)
    fingerprint = {"data": data.content_hash, "indices": data.index_hash, "rule": data.rule}
    _refuse_other_run(folder, recipe, fingerprint, allow)
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(recipe, data, device)
    about = {"recipe": recipe.to_json(), "fingerprint": fingerprint, "machine": describe(device)}
    checkpoint.replace_json(folder / "recipe.json", about)
    saved = checkpoint.latest(folder / "checkpoints")
    if saved is not None:
        trainer.load(saved)
    _trim(folder / "metrics.jsonl", trainer.step)
    if not quiet:
        parameters = sum(p.numel() for p in trainer.network.parameters())
        verb = f"resuming at {trainer.seen:,} images" if saved else "starting"
        tqdm.write(
            f"{recipe.name}: {verb}; {len(data):,} images of {'x'.join(map(str, data.shape))}, {parameters:,} "
            f"parameters, batch {recipe.train.batch}, {recipe.train.precision} on {device} "
            f"({time.monotonic() - began:.1f} s to get ready)"
        )
    with Signals() as signals, open(folder / "metrics.jsonl", "a") as log:
        _loop(trainer, folder, log, signals, fingerprint, quiet, on_sheet)
    return Run.open(folder)


def _loop(
    trainer: Trainer,
    folder: Path,
    log: TextIO,
    signals: Signals,
    fingerprint: dict[str, str],
    quiet: bool,
    on_sheet: Callable[[Path], None] | None,
) -> None:
    train = trainer.recipe.train
    sheet_every = train.sheet_every or max(train.batch, train.images // 10)
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
        state = {
            "seen": trainer.seen,
            "step": trainer.step,
            "elapsed": trainer.elapsed + time.monotonic() - start,
            "skipped": trainer.watch.total,
            "recipe": trainer.recipe.to_json(),
        }
        folder_ = folder / "checkpoints"
        checkpoint.save(folder_, trainer.step, trainer.tensors(), state, keep=train.keep, fingerprint=fingerprint)
        saved_at = time.monotonic()

    with bar:
        bar.refresh()
        while (spent := trainer.spent(time.monotonic() - start)) < 1:
            first = trainer.seen
            good = trainer.advance(spent)
            if not good and trainer.watch.hopeless:
                where = f"step {trainer.step}, samples {first} to {trainer.seen - 1}"
                found = checkpoint.latest(folder / "checkpoints")
                if rolled_back or found is None:
                    raise Diverged(
                        f"Loss or gradient was not finite at {where}, {trainer.watch.run} steps in a row "
                        f"({trainer.watch.total} in all). Lower the learning rate, clip gradients, or use fp32."
                    )
                rolled_back = True
                tqdm.write(f"Not finite at {where}: going back to {found.path.name}.")
                position = trainer.seen
                trainer.load(found)
                trainer.seen = position  # the same weights meet other samples
                trainer.watch.forgive()
            bar.update(trainer.seen - first)
            now = time.monotonic()
            finished = trainer.spent(now - start) >= 1
            if first // train.log_every != trainer.seen // train.log_every or finished:
                record = trainer.record(now - start, spent)
                log.write(json.dumps(record) + "\n")
                log.flush()
                bar.set_postfix(loss=f"{record['loss']:.4f}", refresh=False)
            if first // sheet_every != trainer.seen // sheet_every and not finished:
                _sheet(trainer, folder, on_sheet)
            if signals.received is not None or finished or now - saved_at >= 60 * train.save_every:
                save()
            if signals.received is not None and not finished:
                tqdm.write(f"Signal {signals.received}: saved at {trainer.seen:,} images; the same command resumes.")
                raise Interrupted(128 + signals.received)
    _sheet(trainer, folder, on_sheet)


def _sheet(trainer: Trainer, folder: Path, on_sheet: Callable[[Path], None] | None) -> None:
    """Write a sheet of the averaged weights on fixed seeds, a row per class; a classifier has none."""
    recipe = trainer.recipe
    if trains(recipe) != "denoiser":
        return
    network = trainer.averages.network(trainer.network, recipe.ema.use)
    run = Run(folder, recipe, {})
    source = run.source(device=trainer.device, denoiser=build_denoiser(recipe, network))
    rows, columns = min(len(run.classes), 10) or 4, 8
    labels = torch.arange(rows).repeat_interleave(columns) if run.classes else None
    target = folder / "sheets" / f"{trainer.seen:09d}.png"
    target.parent.mkdir(exist_ok=True)
    try:
        images = source(range(rows * columns), labels)
    except NonFiniteError as error:
        tqdm.write(f"No sheet at {trainer.seen:,} images: {error}")
        return
    PILImage.fromarray(tile(images, columns)).save(target)
    if on_sheet is not None:
        on_sheet(target)


def _refuse_other_run(folder: Path, recipe: Recipe, fingerprint: dict[str, str], allow: tuple[str, ...]) -> None:
    if not (folder / "recipe.json").exists() or not checkpoint.steps(folder / "checkpoints"):
        return
    before = Run.open(folder)
    changed = differences(before.recipe, recipe) | differences(before.about["fingerprint"], fingerprint, "data")
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
