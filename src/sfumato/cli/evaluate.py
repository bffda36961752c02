"""``sfumato evaluate``: scores of a run, each with its interval, floor and protocol."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from sfumato.cli._arguments import (
    Count,
    Folder,
    Name,
    Overrides,
    Text,
    allowed,
    check_first,
    device_named,
    given,
    settled,
)

if TYPE_CHECKING:
    from sfumato.evaluation import Result
    from sfumato.report.table import Row

# Columns of `report.results.score_rows` that a terminal has room for; the rest is in the result's file.
COLUMNS = ("score", "value", "floor", "above floor", "n", "m", "NFE", "protocol")


def evaluate(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    overrides: Overrides = (),
    *,
    n: Count = None,
    m: Count = None,
    extract: Name = None,
    weights: Folder = None,
    resize: Name = None,
    metrics: Annotated[tuple[str, ...], arg(metavar="NAME ...", help_behavior_hint="")] = (),
    split: str = "test",
    first_seed: int = 0,
    sampler: Name = None,
    grid: Name = None,
    steps: Count = None,
    guidance: Text = None,
    use: Name = None,
    device: Name = None,
    data_root: Folder = None,
    quiet: bool = False,
) -> int:
    """Score a run against real images and write RUN/results/*.json; processes started by torchrun share the work.

    Every score is printed with its 95% interval of sampling noise, beside its floor: the same score of as many real
    training images. The difference, "above floor", has an interval of its own: where it contains 0, these images cannot
    be told from real ones. A score with an asterisk has flags, printed below the table. A run that was stopped goes on
    where it was, and another metric costs no new images.

    Arguments:
        run: Directory of a run.
        overrides: Fields of `sample` or `evaluate` to set, e.g. sampler.churn=40.
        n: How many images to generate; the recipe's choice unless given.
        m: How many real images to compare with; all of the split unless given.
        extract: Feature extractor; see `sfumato list extractors`; the recipe's choice unless given.
        weights: Weights file of the extractor (inception, dinov2, resnet), or "download" for inception; that of its
            usual name in the data root unless given.
        resize: How inception resizes images: tf1, half_pixel or clean.
        metrics: What is computed: fd and kid unless given (accuracy for a classifier). `sfumato list metrics` has all:
            fd (FID if over inception), kid, prdc (precision, recall, density, coverage), is, 1nn, ...; the tables
            per-class and memorization. Commas may stand between them. If one cannot be computed, its reason is
            printed and the others are computed.
        split: Real images to compare with: test, val or train; several (train,test) are compared at equal m.
        first_seed: Images are made of the seeds from this one on; disjoint ranges give independent scores.
        sampler: Sampler with its default options; see `sfumato list samplers`.
        grid: Grid with its default options, see `sfumato list grids`, or one computed for the run, e.g. computed-6.
        steps: Steps of the grid.
        guidance: Classifier-free guidance weight: 1 none, 0 unconditional, above 1 towards the class.
        use: Average of the weights, e.g. power-0.05, or raw; the recipe's choice unless given.
        device: cpu, cuda, mps, ...; the best at hand unless given.
        data_root: Folder with a sub-folder for each dataset; the variable SFUMATO_DATA or the cache unless given.
        quiet: No progress bar.
    """
    print(f"sfumato evaluate {run}", flush=True)  # before torch is imported, which takes seconds

    from sfumato import evaluation
    from sfumato.cli._next import comparing, playing, reporting, show_next
    from sfumato.core.outside import allow_named
    from sfumato.core.writing import replace_json
    from sfumato.evaluation.scoring import names_of
    from sfumato.processes.ranks import join
    from sfumato.runs.resolve import load_data
    from sfumato.runs.run import Run

    for name, count in {"n": n, "m": m}.items():
        if count is not None:
            allowed(count, name)
    check_first(first_seed)
    allow_named(extract or "", *words_of(metrics))
    opened = Run.open(run)
    names = words_of(metrics) or names_of(opened, ())
    names_of(opened, names)  # refuses a wrong name before any image is made
    fields = [*given(sampler=sampler, grid=grid, grid__steps=steps, guidance=guidance), *overrides]
    opened = settled(opened, fields, ("sample", "evaluate"), use)
    ranks, where = join(device_named(device))
    splits = words_of((split,))
    if len(splits) > 1 and m is None:
        m = min(len(load_data(opened.recipe, one, data_root)) for one in splits)
    options = {name: value for name, value in {"weights": weights, "resize": resize}.items() if value is not None}
    trees, written = [], []
    for one in splits:
        result = evaluation.evaluate(
            opened, n=n, m=m, extract=extract, options=options, metrics=tuple(names), split=one, first_seed=first_seed,
            use=use, root=data_root, device=where, quiet=quiet,
        )  # fmt: skip
        chosen = {
            "n": n,
            "m": m,
            "extract": extract,
            "weights": weights,
            "resize": resize,
            "split": one,
            "first-seed": first_seed,
            "use": use,
        }
        words = ["sfumato", "evaluate", run, *fields, "--metrics", *names]
        words += [word for name, value in chosen.items() if value is not None for word in (f"--{name}", str(value))]
        tree = {**result.to_json(), "command": shlex.join(words)}
        if ranks.first:
            tree |= {"pictures": draw_panels(result, tree["command"])} if result.panels else {}
            replace_json(result.path, tree)
        trees.append(tree)
        for name, rows in result.tables.items():
            print(f"{name}\n{row_table(rows)}")
        for flag in result.provenance.get("flags", ()):
            print(flag)
        written.append(f"Written to {result.path}")
    if any(tree["scores"] or tree.get("refused") for tree in trees):
        print(score_table(trees, reference=len(splits) > 1))
    print("\n".join(written))
    if ranks.first:
        show_next(reporting(run), *comparing(result.path), *playing(opened))
    return 0


def words_of(texts: Sequence[str]) -> list[str]:
    """Return words that stand apart or between commas.

    >>> words_of(("fd,kid", "prdc"))
    ['fd', 'kid', 'prdc']
    """
    return [word.strip() for text in texts for word in text.split(",") if word.strip()]


def draw_panels(result: Result, command: str) -> dict[str, Any]:
    """Draw the pictures of a result beside its file; return where they are, by name."""
    from sfumato.report.neighbours import neighbours
    from sfumato.report.save import save

    drawn = {}
    for name, panel in result.panels.items():
        path = save(neighbours(**panel), result.path.with_name(f"{result.path.stem}-{name}.png"))
        drawn[name] = {"path": path.name, "command": command}
        print(f"Picture {path}")
    return drawn


def row_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of a result's table as text."""
    from sfumato.report.results import cell
    from sfumato.report.table import text_table

    return text_table([{name: cell(value) for name, value in row.items()} for row in rows])


def score_table(results: Sequence[Mapping[str, Any]], *, reference: bool = False) -> str:
    """Return the scores of results as text, with their flags below.

    Arguments:
        results: JSON of one or more evaluations.
        reference: Whether to say which real images each score is against.
    """
    from sfumato.report.results import FLAGS_APART, score_rows
    from sfumato.report.table import text_table

    rows = score_rows(results)
    names = ("split", *COLUMNS) if reference else COLUMNS
    shown: list[Row] = [{name: row[name] for name in names} for row in rows]
    flagged: dict[str, dict[str, None]] = {}  # scores of equal flags share a line
    for row in rows:
        if row["flags"]:
            flagged.setdefault(str(row["flags"]).replace(FLAGS_APART, "; "), {})[str(row["score"])] = None
    return "\n".join([text_table(shown), *(f"* {', '.join(scores)}: {flags}" for flags, scores in flagged.items())])
