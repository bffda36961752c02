"""``sfumato curves``: how runs trained, from their own logs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Folder, refusal

if TYPE_CHECKING:
    from sfumato.runs.run import Run

TITLED = 3  # runs that a title names


def curves(
    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN [RUN ...]", help_behavior_hint="")],
    *,
    out: Folder = None,
    moments: int = 4,
) -> int:
    """Plot the loss, gradient norm and learning rate of runs, and each run's loss against the noise level.

    A mean over all noise levels hides where a model learns; the second picture shows it at several moments of training.
    A GAN has its two losses and its discriminator's beliefs there. Each run's numbers are written as CSV too.
    Where a run was scored while training (train.evaluate_every), its scores are drawn too. A run may still be training.

    Arguments:
        runs: Directories of runs; several are drawn over each other.
        out: Folder of the pictures; RUN/curves of the first run unless given.
        moments: How many lines the loss against the noise level has, from moments spread evenly over training.
    """
    from sfumato.core.reading import as_written
    from sfumato.report.gather import names_of
    from sfumato.report.results import read_metrics
    from sfumato.runs.run import Run

    if not runs:
        raise refusal("Name at least one run: sfumato curves runs/edm-digits")
    opened = [Run.open(path) for path in dict.fromkeys(runs)]
    folder = Path(out) if out else opened[0].path / "curves"
    names = list(names_of([run.path for run in opened]).values())
    found = {name: read_metrics(run.path / "metrics.jsonl") for name, run in zip(names, opened)}
    with as_written(f"The log of {', '.join(names)}", "Restore metrics.jsonl and scores.jsonl."):
        _draw(opened, found, names, folder, moments)
    return 0


def _draw(opened: list[Run], found: Mapping[str, list[Any]], names: list[str], folder: Path, moments: int) -> None:
    """Draw the curves of runs, and say where they went."""
    from sfumato.core.writing import replace_text
    from sfumato.report.gather import alike
    from sfumato.report.results import read_metrics
    from sfumato.report.save import save
    from sfumato.report.training import (
        adversarial_curves,
        has_levels,
        loss_by_level,
        of_last_protocol,
        records_csv,
        score_curves,
        term_curves,
        training_curves,
    )

    groups = {name: alike(run.recipe.to_json()) for name, run in zip(names, opened)}
    whose = ", ".join(names) if len(names) <= TITLED else f"{len(names)} runs"
    print(f"  {save(training_curves(found, groups, title=whose), folder / 'training.png')}")
    for i, (run, (title, records)) in enumerate(zip(opened, found.items())):
        suffix = "" if len(opened) == 1 else f"-{i}-{run.path.name}"
        table = folder / f"training{suffix}.csv"
        replace_text(table, records_csv(records))
        if run.plan.kind.paired:
            name, picture = f"losses{suffix}.png", adversarial_curves(records, title=title)
        elif has_levels(records):
            name, picture = f"loss-by-level{suffix}.png", loss_by_level(records, moments, title=title)
        else:
            name, picture = "", None
        if run.plan.kind.coder is not None:
            print(f"  {save(term_curves(records, title=title), folder / f'terms{suffix}.png')}")
        if picture is not None:
            print(f"  {save(picture, folder / name)}")
        print(f"  {table}")
    read = {name: of_last_protocol(read_metrics(run.path / "scores.jsonl")) for name, run in zip(names, opened)}
    if scores := {name: records for name, records in read.items() if records}:
        print(f"  {save(score_curves(scores, groups), folder / 'scores.png')}")
