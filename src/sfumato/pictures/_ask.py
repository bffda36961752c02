"""What pictures ask of a run: images of its data, samples, labels, and words for the caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sfumato.core.find import UnknownNameError, nearest
from sfumato.data.dataset import Dataset
from sfumato.runs.override import override
from sfumato.runs.run import Run, load_data
from sfumato.sources import Diffusion

MOST_ROWS = 16  # of a sheet with a row per class


def numbers(run: Run, classes: str) -> list[int] | None:
    """Return the labels that an option `classes` names: "" for all (None if unlabelled), else names or numbers.

    Raises:
        UnknownNameError: For a class the run does not have.
    """
    known = run.classes
    if not classes:
        return list(range(len(known))) or None
    found = []
    for word in (piece.strip() for piece in str(classes).split(",")):
        if word in known:
            found.append(known.index(word))
        elif word.isdigit() and int(word) < len(known):
            found.append(int(word))
        else:
            raise UnknownNameError(nearest("class", word, known) if known else "This run was trained without classes.")
    return found


def labels_of(run: Run, seeds: Sequence[int], classes: str = "") -> Tensor | None:
    """Return a label per seed, the classes in turn: a function of the seed alone."""
    picked = numbers(run, classes)
    return None if picked is None else torch.tensor([picked[seed % len(picked)] for seed in seeds])


def names_of(run: Run, labels: Tensor | None) -> list[str]:
    """Return the class names of labels; () if there are none."""
    return [] if labels is None else [run.classes[int(label)] for label in labels]


def seeds_of(n: int, first: int) -> list[int]:
    """Return the seeds first .. first + n.

    Raises:
        ValueError: If there are none, or they are negative.
    """
    if n < 1 or first < 0:
        raise ValueError(f"A picture shows n >= 1 images of seeds from first >= 0 on; got n = {n}, first = {first}.")
    return list(range(first, first + n))


def sampled_by(run: Run, sampler: str) -> Run:
    """Return the run sampled by another sampler with its default options, on its own grid."""
    return run.with_recipe(override(run.recipe, [f"sample.sampler={sampler}"]))


def drawn(run: Run, split: str, n: int, root: Path | str | None) -> Dataset:
    """Return the first n images of a seeded draw from a split of the run's data: the same for every run.

    Raises:
        ValueError: If there are not so many.
    """
    data = load_data(run.recipe, split, root)
    if not 1 <= n <= len(data):
        raise ValueError(f"{data.name} {split} has {len(data)} images; got n = {n}.")
    return data.take(n, seed=0)


def made_by(run: Run, source: Diffusion | None = None) -> str:
    """Say how a run's images are made."""
    settings = run.recipe.sample
    guided = f", guidance {settings.guidance:g}" if settings.guidance != 1 else ""
    return f"{settings.sampler} on {settings.grid}{guided}, {run.checkpoint.state['seen']:,} training images."
