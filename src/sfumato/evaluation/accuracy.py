"""How well a noisy classifier reads images at each level: its accuracy against ln SNR.

At high SNR it is that of an ordinary classifier, at low SNR chance; guidance by it acts in between. The log of a run
has the same in bins on training images (`accuracy_by_log_snr`); here it is measured on a split of your choice, every
image at every level, with noise addressed by the image, so two classifiers are compared on the same noisy images.

References:
    Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. 2021, section 4. https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sfumato.core import noise
from sfumato.core.classifier import NoisyClassifier
from sfumato.core.images import to_float
from sfumato.core.level import Level
from sfumato.evaluation.findings import cell, series_of
from sfumato.evaluation.judge import measured_on
from sfumato.evaluation.result import Result, facts_of_split
from sfumato.metrics.jackknife import Estimate
from sfumato.metrics.prdc import share
from sfumato.progress import bar_of
from sfumato.runs.run import Run

LOG_SNRS = tuple(float(v) for v in range(-10, 11, 2))


class Accuracy(NamedTuple):
    """Accuracy at one level: ln SNR, the share of images named right with its interval, and the mean -ln p(y | x)."""

    log_snr: float
    share: Estimate
    nats: float


def evaluate_classifier(
    run: Run,
    *,
    split: str = "test",
    m: int | None = None,
    log_snrs: Sequence[float] = LOG_SNRS,
    use: str | None = None,
    root: Path | str | None = None,
    device: torch.device | str = "cpu",
    quiet: bool = False,
) -> Result:
    """Measure a trained classifier's accuracy at several noise levels, and write it to RUN/results/.

    Arguments:
        run: A run with objective=classifier.
        split: Part of the data: "test", "val" or "train".
        m: How many of them; None for all.
        log_snrs: Levels by ln SNR; a discrete classifier is asked at the nearest level it knows.
        use: Name of an average of the weights; None for the recipe's choice.
        root: Data root.
        device: Where to compute.
        quiet: Whether to show no progress bar.

    Returns:
        The table and the curve "accuracy", from noisy to clean.

    Raises:
        RecipeError: If the run trained no classifier.
        LeakageError: If the split is called held out and was trained on.
        ValueError: If the images have no labels.
    """
    data, _, notes = measured_on(run.recipe, split, m, root)
    if data.labels is None:
        raise ValueError(f"{data.name} {split} has no labels to compare with.")
    classifier, batch = run.classifier(use, device), run.recipe.sample.batch
    found = [
        _at(classifier, level, data.images, data.labels, batch, device)
        for level in bar_of(None, "level", "accuracy", iterable=levels_at(run, log_snrs), leave=False, quiet=quiet)
    ]
    mark = {"mark": "*"} if notes else {}
    rows: list[dict[str, Any]] = [
        {"ln SNR": round(p.log_snr, 2), "accuracy": {**cell(p.share), **mark}, "-ln p(y | x)": p.nats, "m": len(data)}
        for p in found
    ]
    series = series_of([p.log_snr for p in found], [p.share for p in found])
    chance = 1 / max(1, len(data.classes))
    facts = facts_of_split(run, use, data, notes, device)
    curve = {"series": {f"{data.name} {split}": series}, "chance": chance}
    name = f"accuracy-{split}-m{len(data)}"
    return Result.written(run, (), facts, name, tables={"accuracy": rows}, curves={"accuracy": curve})


def levels_at(run: Run, log_snrs: Sequence[float]) -> list[Level]:
    """Return the levels of a run's own process nearest to the given ln SNR, from noisy to clean, without repetition."""
    known = known_levels(run)
    nearest = {int((known.log_snr - wanted).abs().argmin()) for wanted in log_snrs}
    return [known[i] for i in sorted(nearest, key=lambda i: float(known.log_snr[i]))]


def known_levels(run: Run) -> Level:
    """Return noisy levels of a run's own process: all of its table, or many of those of training, shape (N,)."""
    if run.plan.known is not None:
        return run.plan.known[1:]
    return run.plan.trained_levels((torch.arange(4096, dtype=torch.float64) + 0.5) / 4096)


@torch.no_grad()
def _at(
    classifier: NoisyClassifier, level: Level, images: Tensor, labels: Tensor, batch: int, device: torch.device | str
) -> Accuracy:
    right, nats = 0, 0.0
    for start in range(0, len(images), batch):
        x0, label = to_float(images[start : start + batch]).to(device), labels[start : start + batch].to(device)
        ids = torch.arange(start, start + len(x0))
        n = noise.normal(ids, x0.shape[1:], purpose="accuracy", device=device, dtype=x0.dtype)
        log_p = classifier(level.noisy(x0, n), level).log_softmax(1)
        right += int((log_p.argmax(1) == label).sum())
        nats -= float(log_p.gather(1, label[:, None]).sum())
    return Accuracy(float(level.log_snr), share(right, len(images)), nats / len(images))
