"""What a row of a study is scored by, where that is not the whole of what its run makes.

    OneClass     a class: images asked for it, against real images of it
    Estimates    the estimate of x0 after k of N steps, in place of the finished image
    RealImages   real images as if they were generated: the floor at a number of images
    Coding       all images of a run, with the bits of held-out ones and what an autoencoder loses of them
    Probed       all images, and what a linear classifier reads inside the network
    Restoration  held-out pictures, damaged and restored: their distance as a set, nearness to the originals, coverage
    Copying      all that a run makes, and how near it lies to the training images

A judge is a frozen dataclass. Its repr is part of the key of its results, so a changed judge judges anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sfumato.codelength.latents import bits_of_pixels
from sfumato.codelength.result import Asked as Bits
from sfumato.core.condition import Label
from sfumato.core.find import find
from sfumato.core.images import to_float, to_uint8
from sfumato.core.task import Task
from sfumato.evaluation import Result, evaluate, restored
from sfumato.evaluation.judge import Judge, each
from sfumato.evaluation.probe import probe
from sfumato.evaluation.reconstruction import evaluate_autoencoder
from sfumato.experiments.study import Asked, StudyError
from sfumato.metrics.score import Score
from sfumato.processes.machine import default_device
from sfumato.restoration import Restored, measured, method_of, restore
from sfumato.runs.conditions import measured_label
from sfumato.runs.recipe import Recipe
from sfumato.runs.resolve import load_data
from sfumato.runs.run import Run

TABLE = "reconstruction"


@dataclass(frozen=True)
class OneClass:
    """Score images of one class against real images of that class.

    Attributes:
        name: The class. A model of that class alone, or one without labels, is not asked for it.
        asked: Whether the model is; False to judge everything it makes as if it were of this class.
    """

    name: str
    asked: bool = True

    def label(self, run: Run) -> int | None:
        """Return the number that a run knows the class by; None if it is not asked for it."""
        return list(run.classes).index(self.name) if self.asked and run.classes else None

    def __call__(self, asked: Asked) -> tuple[dict[str, Score], dict[str, Any]]:
        """Return scores by metric, and facts."""
        run = _run(asked)
        label = self.label(run)
        data = replace(asked.recipe.data, classes=(self.name,), first=None)
        labels = None if label is None else torch.full((asked.study.n,), label)
        return _scores(asked, replace(asked.recipe, data=data), _images(run, asked, labels), f"class {self.name}")


@dataclass(frozen=True)
class Estimates:
    """Score the estimates of x0 that the walk has after some of its steps.

    Attributes:
        step: After how many steps, from 1 on.
    """

    step: int

    def __call__(self, asked: Asked) -> tuple[dict[str, Score], dict[str, Any]]:
        """Return scores by metric, and facts: the level's sigma/alpha among them."""
        run = _run(asked)
        walk = run.diffusion(device=asked.device or default_device())
        labels, prior = run.labels(asked.study.n)
        nsr = float(walk.grid[self.step - 1].nsr)

        def estimates(seeds: range, chosen: Label | None) -> Tensor:
            for k, state in enumerate(walk.states(seeds, chosen), start=1):
                if k == self.step:
                    return to_uint8(state.x0).cpu()
            raise StudyError(f"{run.path} walks fewer than {self.step} steps.")

        images, facts = _made(estimates, asked.study.n, labels, walk.batch)
        facts |= {"nfe": self.step, "nsr": nsr, "images_seen": run.making().images_seen}
        return _scores(asked, asked.recipe, (images, facts), prior, labels)


@dataclass(frozen=True)
class RealImages:
    """Score real training images against the reference, as if they were generated.

    Attributes:
        n: Number of real images.
        repeats: Draws whose mean is taken.
    """

    n: int
    repeats: int = 8

    def __call__(self, asked: Asked) -> tuple[dict[str, Score], dict[str, Any]]:
        """Return scores by metric, and facts."""
        judge = Judge.of(asked.recipe, asked.study.split, asked.root)
        scores = {metric: judge.floor(metric, self.n, False, self.repeats) for metric in asked.study.metrics}
        return scores, {"nfe": 0, "pool": len(judge.drawn(self.n)), "repeats": self.repeats}


@dataclass(frozen=True)
class Restoration:
    """Score held-out pictures that a run restored: the set by FD, each picture by its original.

    Attributes:
        task: Name of the task.
        method: Name of the method.
        samples: Samples of the posterior for each picture.
        options: Options of the task, as pairs of name and value.
    """

    task: str
    method: str
    samples: int
    options: tuple[tuple[str, Any], ...] = ()

    def task_of(self, shape: tuple[int, int, int]) -> Task:
        """Return the task for pictures of a shape (C, H, W)."""
        return find("task", self.task)(shape, **dict(self.options))

    def restored(self, asked: Asked) -> tuple[Tensor, Tensor, Task, Restored]:
        """Return originals (uint8), measurements, the task and what was restored."""
        run, device = _run(asked), asked.device or default_device()
        held = load_data(asked.recipe, asked.study.split, asked.root).take(asked.study.n, seed=0)
        source, networks = run.counted_walk(device=device)
        task, seeds = self.task_of(source.shape), range(len(held))
        y = measured(task, to_float(held.images), seeds)
        method, spread, k = method_of(self.method), run.plan.sigma_data, self.samples
        told = measured_label(asked.recipe, task, y, None)
        found = restore(source, task, y, method, samples=k, seeds=seeds, labels=told, sigma_data=spread, asked=networks)
        return held.images, y, task, found

    def __call__(self, asked: Asked) -> tuple[dict[str, Score], dict[str, Any]]:
        """Return the distance of the set, and facts: the figures of the pictures among them."""
        began = time.monotonic()
        truth, _, task, found = self.restored(asked)
        seconds = time.monotonic() - began
        data = load_data(asked.recipe, asked.study.split, asked.root)
        judge = restored.judge_of(asked.recipe, data, data.take(asked.study.n, seed=0))
        right = f"coverage ({restored.expected_coverage(found):.2f} is right)"
        named = {
            right if name == "coverage" else name: value
            for name, value in restored.as_json(restored.figures(truth, found, task)).items()
        }
        facts: dict[str, Any] = {"nfe": found.nfe, "vjps": found.vjps, "samples": self.samples}
        facts |= {"figures": named, "images_per_second": round(len(truth) * self.samples / seconds, 2)}
        return {"fd": restored.distance(judge, found)}, facts | {"images_seen": _run(asked).checkpoint.state["seen"]}


@dataclass(frozen=True)
class Coding:
    """Score all that a run makes, and count what real images cost it and lose by it.

    Attributes:
        images: Held-out images whose bits are counted, at least 2.
        levels: Steps of a chain of pixels, or levels at which a prior of latents is asked.
    """

    images: int
    levels: int

    def __call__(self, asked: Asked) -> tuple[dict[str, Score], dict[str, Any]]:
        """Return scores by metric, and facts: bits/dim and PSNR among their figures, each if the run has it."""
        run, device = _run(asked), asked.device or default_device()
        figures: dict[str, list[float]] = {}
        scores: dict[str, Score] = {}
        facts: dict[str, Any] = {"images_seen": run.checkpoint.state["seen"]}
        if run.plan.kind.draws:
            scores, facts = _all(run, asked)
            count = Bits(self.images, (asked.study.split,), ("vlb",), steps=self.levels)
            (bits,) = bits_of_pixels(run, count, root=asked.root, device=device, quiet=True)[0]["scores"]
            figures["bits/dim, bound"] = [bits["value"], *bits["interval"]]
        else:
            facts["training_seconds"] = round(run.checkpoint.state["elapsed"], 1)
        if run.plan.kind.coder is not None:
            (row,) = evaluate_autoencoder(run, split=asked.study.split, root=asked.root, device=device).tables[TABLE]
            figures |= {name: [row[name]["value"], *row[name]["interval"]] for name in ("PSNR in dB", "bits a number")}
        return scores, {**facts, "figures": figures}


@dataclass(frozen=True)
class Copying:
    """Score all that a run makes, and say beside it how near its images lie to those that it was trained on."""

    def __call__(self, asked: Asked) -> tuple[dict[str, Score], dict[str, Any]]:
        """Return scores by metric, and facts: the figures of `metrics.memorization` among them."""
        run, study, result = _run(asked), asked.study, evaluated(asked, "memorization")
        rows = {row["measure"]: row for row in result.tables["memorization"]}
        space = f"({run.recipe.evaluate.extractor} features)"
        near, authentic = rows[f"nearer than all but 1% of held-out images {space}"], rows[f"AuthPct {space}"]
        shown = {
            "near copies (1% by chance)": near["generated"],
            "AuthPct": authentic["generated"],
            "AuthPct, held out": authentic["held out"],
        }
        figures = {name: [found["value"], *found["interval"]] for name, found in shown.items()}
        return dict(zip(study.metrics, result.scores, strict=True)), result.provenance | {"figures": figures}


@dataclass(frozen=True)
class Probed:
    """Score all that a run makes, and what a linear classifier reads inside its network.

    Attributes:
        n: Training images of the classifier.
        m: Held-out images that it is asked about.
        at: Levels sigma / alpha; () for several over those of training.
        blocks: Blocks of the network; () for input, middle and output blocks.
    """

    n: int
    m: int
    at: tuple[float, ...] = ()
    blocks: tuple[str, ...] = ()

    def __call__(self, asked: Asked) -> tuple[dict[str, Score], dict[str, Any]]:
        """Return scores by metric, and facts: the accuracies among them, with 95% intervals."""
        run = _run(asked)
        scores, facts = _all(run, asked)
        found = probe(
            run, at=self.at, blocks=self.blocks, n=self.n, m=self.m, split=asked.study.split, root=asked.root,
            device=asked.device, quiet=asked.quiet,
        )  # fmt: skip
        (best,) = found.tables["probe, best"]
        names = {"accuracy": "probe", "above PCA": "above PCA", "pixels": "pixels"}
        figures = {name: [best[key]["value"], *best[key]["interval"]] for key, name in names.items()}
        return scores, {**facts, "figures": figures, "probed": f"{best['block']} {best['level']}"}


def evaluated(asked: Asked, *more: str) -> Result:
    """Return what `sfumato evaluate` finds of all that a row's run makes, by the study's metrics and more."""
    study = asked.study
    return evaluate(
        _run(asked), n=study.n, metrics=(*study.metrics, *more), split=study.split, root=asked.root,
        device=asked.device, quiet=asked.quiet,
    )  # fmt: skip


def _run(asked: Asked) -> Run:
    if asked.run is None:
        raise StudyError("This judge looks at the images of a run, and the row has none: it needs a judge of its own.")
    return asked.run


def _all(run: Run, asked: Asked) -> tuple[dict[str, Score], dict[str, Any]]:
    """Score the images of a run, of every class it is asked for."""
    labels, prior = run.labels(asked.study.n)
    return _scores(asked, asked.recipe, _images(run, asked, labels), prior, labels)


def _images(run: Run, asked: Asked, labels: Label | None) -> tuple[Tensor, dict[str, Any]]:
    """Return the images of seeds 0 .. n of a run, and the facts of making them."""
    source, asked_of = run.counted(device=asked.device or default_device())
    images, facts = _made(lambda seeds, chosen: source(seeds, chosen), asked.study.n, labels, source.batch)
    saved = run.checkpoint.state
    own, weak = asked_of()
    facts |= replace(run.making(), nfe=round((own + weak) / asked.study.n, 2)).to_json()
    return images, facts | {"training_seconds": round(saved["elapsed"], 1)}


def _made(
    make: Callable[[range, Label | None], Tensor], n: int, labels: Label | None, batch: int
) -> tuple[Tensor, dict[str, Any]]:
    began, parts = time.monotonic(), []
    for start in range(0, n, batch):
        stop = min(n, start + batch)
        parts.append(make(range(start, stop), None if labels is None else labels[start:stop]))
    return torch.cat(parts), {"images_per_second": round(n / (time.monotonic() - began), 2)}


def _scores(
    asked: Asked, recipe: Recipe, made: tuple[Tensor, dict[str, Any]], prior: str, labels: Label | None = None
) -> tuple[dict[str, Score], dict[str, Any]]:
    """Score images against the real ones of a recipe's data, beside their floor; `labels` if they were chosen."""
    images, facts = made
    judge = Judge.of(recipe, asked.study.split, asked.root)
    refused: dict[str, str] = {}
    possible = tuple(each(asked.study.metrics, refused, lambda metric: judge.check(metric, len(images))))
    seen = judge.seen(images, possible, labels, prior, facts)
    scores = each(possible, refused, lambda metric: judge.score(metric, seen))
    return scores, {**facts, **({"refused": refused} if refused else {})}
