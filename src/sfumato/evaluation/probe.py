"""Does a model represent? A linear classifier on what a trained network holds inside, at each noise level and block.

Every image gets the noise of a level, the network looks at it without being told its class, and a block's output is
averaged over space (`networks._pooled`). The features of training images train a linear classifier, those of held-out
images test it (`metrics.linear_probe`). Beside it stand two baselines on the clean images, which ask for nothing
learned: the raw pixels, and as many principal components of them as the block has numbers. A third is the pixels with
the noise that the network saw. The block and level that are named best are chosen on training images.

References:
    Baranchuk, Rubachev, Voynov, Khrulkov, Babenko. Label-Efficient Semantic Segmentation with Diffusion Models. 2022.
        https://arxiv.org/abs/2112.03126
    Xiang, Yang, Huang, Wang. Denoising Diffusion Autoencoders are Unified Self-Supervised Learners. 2023.
        https://arxiv.org/abs/2303.09769
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sfumato.core.find import conform
from sfumato.core.level import Level
from sfumato.evaluation.findings import cell, series_of
from sfumato.evaluation.probed import INPUT, Images, Look
from sfumato.evaluation.result import Result, facts_of_split
from sfumato.metrics.flags import flagged
from sfumato.metrics.linear_probe import Reading, principal, read_out
from sfumato.metrics.neighbours import nearest
from sfumato.processes.machine import default_device
from sfumato.progress import Bar, bar_of
from sfumato.runs.run import Run

SHOWN = (8, 6)  # images, and neighbours of each, of the sheet


def probe(
    run: Run,
    *,
    at: Sequence[float] = (),
    blocks: Sequence[str] = (),
    n: int | None = None,
    m: int | None = None,
    split: str = "test",
    use: str | None = None,
    root: Path | str | None = None,
    device: torch.device | str | None = None,
    batch: int | None = None,
    quiet: bool = False,
) -> Result:
    """Measure what a linear classifier reads in a trained network, and write it to RUN/results/.

    Arguments:
        run: A run of a denoiser, a classifier or a GAN, whose discriminator is probed.
        at: Levels sigma / alpha; () for several over the levels of training.
        blocks: Paths of blocks of the network; () for input blocks, middle and output blocks.
        n: Training images; None for all, and at most 5,000.
        m: Held-out images; None for all, and at most 2,000.
        split: Part of the data that is held out.
        use: Which average of the weights; None for the recipe's choice.
        root: Data root.
        device: None for the best at hand.
        batch: Images per pass; None for the recipe's choice.
        quiet: Whether progress bars are left out.

    Returns:
        The tables "probe" (a row a block, a column a level) and "probe, best", the curve "probe", and the sheet
        "probe-neighbours".

    Raises:
        ProbeError: If the data has no classes, or for an unknown block or a level outside those of training.
        LeakageError: If the split is called held out and was trained on.
    """
    n, m = conform("n", n, int | None), conform("m", m, int | None)
    run.place("results")
    images = Images.of(run, split, n, m, root)
    look = Look.of(run, use, torch.device(device if device is not None else default_device()), batch)
    levels, chosen = look.levels(at), look.blocks(images.train, blocks)
    total = len(levels) * (len(images.train) + len(images.held))
    with bar_of(total, "img", "probing", quiet=quiet) as bar:
        found = _read(images, look, levels, chosen, bar)
    return _written(run, use, f"probe-{split}-n{len(images.train)}-m{len(images.held)}", images, look, found)


@dataclass(frozen=True, eq=False)
class _Found:
    """What was read, by block and level: of `best` the features of training and held-out images are kept."""

    readings: dict[tuple[str, float], Reading]
    widths: dict[str, int]
    components: dict[str, Reading]
    pixels: Reading
    best: tuple[str, float]
    shown: tuple[np.ndarray, np.ndarray]


def _read(images: Images, look: Look, levels: Sequence[Level], blocks: Sequence[str], bar: Bar) -> _Found:
    """Train a linear classifier on every block at every level, and on the baselines."""
    train, held = images.train, images.held
    assert train.labels is not None and held.labels is not None
    labels, asked = train.labels.numpy(), held.labels.numpy()
    readings: dict[tuple[str, float], Reading] = {}
    widths: dict[str, int] = {}
    best: tuple[str, float] | None = None
    shown = np.empty(0), np.empty(0)
    for level in levels:
        nsr = float(level.nsr)
        ours, theirs = (look.features(data, level, blocks, bar) for data in (train, held))
        for name in (*blocks, INPUT):
            bar.set_postfix_str(f"{name} at {nsr:.3g}")
            readings[name, nsr] = read_out(ours[name], labels, theirs[name], asked)
            widths[name] = ours[name].shape[1]
            better = best is None or readings[name, nsr].validated > readings[best].validated
            if better and name != INPUT:
                best, shown = (name, nsr), (ours[name], theirs[name])
    bar.set_postfix_str("baselines")
    rows = [data.images.flatten(1).numpy().astype(np.float32) / 127.5 - 1 for data in (train, held)]
    pixels = read_out(rows[0], labels, rows[1], asked)
    own = {name: min(*rows[0].shape, widths[name]) for name in blocks}
    axes = principal(rows[0], rows[1], max(own.values()))
    read = {d: read_out(axes[0][:, :d], labels, axes[1][:, :d], asked) for d in sorted(set(own.values()))}
    components = {**{name: read[d] for name, d in own.items()}, INPUT: pixels}
    assert best is not None  # there is a block and a level
    return _Found(readings, widths, components, pixels, best, shown)


def _written(run: Run, use: str | None, name: str, images: Images, look: Look, found: _Found) -> Result:
    """Return the result of a probe after writing it."""
    readings, widths, components, pixels = found.readings, found.widths, found.components, found.pixels
    block, nsr = found.best
    levels = list(dict.fromkeys(at for _, at in readings))
    digits = next(n for n in range(3, 20) if len({f"{at:.{n}g}" for at in levels}) == len(levels))  # tell them apart
    told = {at: f"at {at:.{digits}g}" if look.run.plan.kind.levels else "clean" for at in levels}
    table: list[dict[str, Any]] = [
        {
            "block": name,
            "numbers": width,
            **{told[at]: cell(readings[name, at].accuracy) for at in levels},
            "clean PCA": cell(components[name].accuracy),
        }
        for name, width in widths.items()
    ]
    top = readings[block, nsr]
    summed = {
        "block": block,
        "level": told[nsr],
        "numbers": widths[block],
        "accuracy": cell(top.accuracy),
        "PCA": cell(components[block].accuracy),
        "above PCA": cell(top.above(components[block])),
        "pixels": cell(pixels.accuracy),
        "above pixels": cell(top.above(pixels)),
        "C": top.chosen,
        "m": len(images.held),
    }
    series = {name: series_of(levels, [readings[name, at].accuracy for at in levels]) for name in widths}
    curve = {
        "series": series,
        "pixels": pixels.accuracy.value,
        "pca": components[block].accuracy.value,
        "numbers": widths[block],
        "noisy": INPUT,
        "chance": float(np.bincount(images.held.labels).max() / len(images.held)),  # type: ignore[arg-type]
        "caption": f"{len(images.held):,} images of {images.held.name}, {len(images.train):,} training images; 95% "
        "intervals. Pixels and PCA are of clean images.",
    }
    never = [flagged("never-without")] if "label" in run.plan.always_told else []
    facts = facts_of_split(run, use, images.held, [*images.notes, *never], look.device)
    facts |= {"n": len(images.train), "levels": levels}
    return Result.written(
        run,
        (),
        facts,
        name,
        tables={"probe": table, "probe, best": [summed]},
        curves={"probe": curve},
        panels={"probe-neighbours": _sheet(run, images, found.shown, f"{block} {told[nsr]}")},
    )


def _sheet(run: Run, images: Images, shown: tuple[np.ndarray, np.ndarray], space: str) -> dict[str, Any]:
    """Return what the sheet shows: held-out images beside the training images with the nearest features."""
    count, k = min(SHOWN[0], len(images.held)), min(SHOWN[1], len(images.train))
    spread = shown[0].std(0)
    ours, theirs = (rows / np.where(spread > 0, spread, 1) for rows in shown)
    square, index = nearest(theirs[:count].astype(np.float32), ours.astype(np.float32), k)
    places = torch.from_numpy(index)
    assert images.held.labels is not None
    return {
        "samples": images.held.images[:count],
        "nearest": images.train.images[places],
        "distances": torch.from_numpy(np.sqrt(square)),
        "row_labels": [images.held.classes[int(k)] for k in images.held.labels[:count]],
        "space": f"{space} (feature)",
        "title": f"{run.title}: held-out images and their neighbours",
        "caption": "The left column is held out; its neighbours are training images.",
    }
