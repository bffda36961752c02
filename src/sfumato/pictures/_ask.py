"""What pictures ask of a run: images of its data, seeds, and another sampler."""

from __future__ import annotations

from pathlib import Path

from sfumato.data.dataset import Dataset
from sfumato.runs.override import override
from sfumato.runs.resolve import load_data
from sfumato.runs.run import Run

MOST_ROWS = 16  # of a sheet with a row per class
MOST = 10_000  # images of a picture


def seeds_of(n: int, first: int) -> list[int]:
    """Return the seeds first .. first + n.

    Raises:
        ValueError: If there are none, or they are negative.
    """
    if not 1 <= n <= MOST or not 0 <= first < 2**62:
        raise ValueError(
            f"A picture shows n = 1 to {MOST:,} images of seeds from first >= 0 on, below 2^62; got n = {n}, first = "
            f"{first}."
        )
    return list(range(first, first + n))


def sampled_by(run: Run, sampler: str) -> Run:
    """Return the run sampled by another sampler with its default options, on its own grid.

    Raises:
        RecipeError: If it trained no denoiser.
    """
    run.require_walk()
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
