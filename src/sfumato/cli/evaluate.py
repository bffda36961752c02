"""``sfumato evaluate``: scores of a run, each with its interval, floor and protocol."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Count, Folder, Name, Number, Overrides, device_named, given, resettle

if TYPE_CHECKING:
    from sfumato.report.table import Row

# Columns of `report.results.score_rows` that a terminal has room for; the rest is in the result's file.
COLUMNS = ("score", "value", "floor", "above floor", "n", "m", "NFE", "protocol")


def evaluate(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    overrides: Overrides = (),
    *,
    n: Count = None,
    extract: Name = None,
    metrics: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ("fd", "kid"),
    split: str = "test",
    first_seed: int = 0,
    sampler: Name = None,
    grid: Name = None,
    steps: Count = None,
    guidance: Number = None,
    use: Name = None,
    device: Name = None,
    data_root: Folder = None,
    quiet: bool = False,
) -> int:
    """Score a run against real images and write RUN/results/*.json; processes started by torchrun share the work.

    Every score is printed with its 95% interval of sampling noise, beside its floor: the same score of real training
    images in as large a number. The difference has an interval of its own: where it holds 0, these images cannot be
    told from real ones. A score with an asterisk carries flags, printed below the table.

    Arguments:
        run: Directory of a run.
        overrides: Fields of `sample` or `evaluate` to set, e.g. sampler.churn=40.
        n: How many images to generate; the recipe's choice unless given.
        extract: Feature extractor; see `sfumato list extractors`; the recipe's choice unless given.
        metrics: Which distances: fd, kid.
        split: Real images to compare with: test, val or train.
        first_seed: Images are made of the seeds from this one on; disjoint ranges give independent scores.
        sampler: Sampler with its default options; see `sfumato list samplers`.
        grid: Grid with its default options; see `sfumato list grids`.
        steps: Steps of the grid.
        guidance: Classifier-free guidance weight: 1 none, 0 unconditional, above 1 towards the class.
        use: Average of the weights, e.g. power-0.05, or raw; the recipe's choice unless given.
        device: cpu, cuda, mps, ...; the best at hand unless given.
        data_root: One folder a dataset; the variable SFUMATO_DATA or the cache unless given.
        quiet: No progress bar.
    """
    print(f"sfumato evaluate {run}", flush=True)  # before torch is imported, which takes seconds

    from sfumato import evaluation
    from sfumato.core.find import OptionError
    from sfumato.metrics.score import find_metric
    from sfumato.training.checkpoint import replace_json
    from sfumato.training.distributed import join
    from sfumato.training.run import Run

    if n is not None and n < 1:
        raise OptionError(f"n must be at least 1; got {n}.")
    for name in metrics:
        find_metric(name)  # before any image is made
    opened = Run.open(run)
    fields = [*given(sampler=sampler, grid=grid, grid__steps=steps, guidance=guidance), *overrides]
    opened = opened.with_recipe(resettle(opened.recipe, fields, ("sample", "evaluate")))
    ranks, own = join(device_named(device))
    result = evaluation.evaluate(
        opened, n=n, extract=extract, metrics=metrics, split=split, first_seed=first_seed, use=use, root=data_root,
        device=own, quiet=quiet,
    )  # fmt: skip
    chosen = {"n": n, "extract": extract, "split": split, "first-seed": first_seed, "use": use}
    words = ["sfumato", "evaluate", run, *fields, "--metrics", *metrics]
    words += [word for name, value in chosen.items() if value is not None for word in (f"--{name}", str(value))]
    tree = {**result.to_json(), "command": shlex.join(words)}
    if ranks.first:
        replace_json(result.path, tree)
    print(score_table([tree]))
    print(f"Written to {result.path}")
    return 0


def score_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the scores of results as text, with their flags below.

    Arguments:
        results: JSON of one or more evaluations.
    """
    from sfumato.report.results import score_rows
    from sfumato.report.table import text_table

    rows = score_rows(results)
    shown: list[Row] = [{name: row[name] for name in COLUMNS} for row in rows]
    flags = [f"* {row['score']}: {row['flags']}" for row in rows if row["flags"]]
    return "\n".join([text_table(shown), *flags])
