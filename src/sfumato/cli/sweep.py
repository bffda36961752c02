"""``sfumato sweep``: the same seeds under one setting that varies."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Count, Folder, Name, Overrides, Text, allowed, device_named, settled, typed
from sfumato.runs.drawn import SAMPLES

if TYPE_CHECKING:
    from sfumato.runs.run import Run

CLASSES, PER_CLASS = 10, 2  # rows of a sheet and images of a class in a block unless told otherwise


def sweep(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    field: Annotated[Positional[str], arg(metavar="FIELD=V1,V2,...")],
    overrides: Overrides = (),
    *,
    n: Count = None,
    classes: Text = None,
    use: Name = None,
    out: Folder = None,
    score: Count = None,
    metrics: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ("fd",),
    split: str = "test",
    device: Name = None,
    data_root: Folder = None,
) -> int:
    """Draw the same seeds under several values of one sampling field, a block of columns per value.

    What differs between blocks is the field alone: sfumato sweep RUN guidance=1,1.5,2.5,5
    or sampler=heun,ddim,dpmpp, or grid.steps=4,8,16,32. With --score every value is evaluated too, and the curve (score
    against guidance, against NFE and seconds, or with evaluate.n=500,1000,2000 against n) is kept in RUN/results.

    Arguments:
        run: Directory of a run.
        field: The field of `sample` that varies, and its values.
        overrides: Fields of `sample` that all blocks share, e.g. grid.steps=12.
        n: Images of a class in each block; 2 unless given.
        classes: Class names or numbers, a row each; the first ten unless given.
        use: Average of the weights, e.g. power-0.05, or raw; the recipe's choice unless given.
        out: Path of the PNG; RUN/samples/sweep-FIELD.png unless given.
        score: Evaluate every value with this many images; killed and started again, it goes on.
        metrics: Metrics of --score, as for evaluate: fd, kid, pr, ...; of guidance e.g. fd pr saturation.
        split: Real images of --score: test, val or train.
        device: cpu, cuda, mps, ...; the best at hand unless given.
        data_root: Folder with a sub-folder for each dataset; the variable SFUMATO_DATA or the cache unless given.
    """
    print(f"sfumato sweep {run} {field}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.core.find import OptionError
    from sfumato.report import sweep as pictures
    from sfumato.report.save import save
    from sfumato.runs.making import shared
    from sfumato.runs.run import Run
    from sfumato.sources import class_names, classes_named, in_turn

    opened = Run.open(run)
    path, _, text = field.partition("=")
    values = [value.strip() for value in text.split(",") if value.strip()]
    if len(values) < 2:
        raise OptionError(f"A sweep needs one field with at least two values, e.g. guidance=1,2.5,5; got {field!r}.")
    where = device_named(device)
    if score is not None or path.startswith("evaluate."):
        runs = {}
        for value in values:
            runs[value] = settled(opened, [*overrides, f"{path}={value}"], ("sample", "evaluate"), use)
        words = ["sfumato", "sweep", run, field, *overrides, *(["--score", str(score)] if score is not None else [])]
        words += ["--metrics", *metrics, "--split", split, *(["--use", use] if use else [])]
        _score(runs, path, None if path == "evaluate.n" else score, metrics, split, use, data_root, where, words)
        if path.startswith("evaluate."):
            return 0
    sources, makings = {}, []
    for value in values:
        one = settled(opened, [*overrides, f"{path}={value}"], ("sample",), use)
        sources[f"{path.split('.')[-1]} {value}"] = one.source(use=use, device=where)
        makings.append(one.making(use))
    across = PER_CLASS if n is None else n
    if across < 1:
        raise OptionError(f"--n is at least 1 image of a class in each block; got {across}.")
    picked = classes_named(classes, opened.classes)
    picked = picked if classes or picked is None else picked[:CLASSES]
    rows = len(picked) if picked else 8
    seeds = list(range(allowed(rows * across)))
    labels = None if picked is None else in_turn(seeds, [label for label in picked for _ in range(across)])
    names = class_names(picked, opened.classes)
    picture = pictures.sweep(
        sources,
        seeds,
        labels,
        across=across,
        row_labels=names,
        title=f"{opened.title}: {path}",
        caption=f"Otherwise {shared(makings).sentence}",
    )
    target = Path(out) if out else opened.path / SAMPLES / f"sweep-{path.replace('.', '-')}.png"
    print(f"  {save(picture, target, command=typed())}")
    return 0


def _score(
    runs: Mapping[str, Run],
    field: str,
    n: int | None,
    metrics: Sequence[str],
    split: str,
    use: str | None,
    root: str | None,
    device: str,
    words: Sequence[str],
) -> None:
    """Evaluate every value, print the table, and draw the curves beside the result."""
    from sfumato.cli.evaluate import words_of
    from sfumato.core.find import OptionError
    from sfumato.core.outside import allow_named
    from sfumato.evaluation import sweep as scoring
    from sfumato.evaluation.findings import expand, tables
    from sfumato.report.curve_kinds import CURVES
    from sfumato.report.results import cell
    from sfumato.report.save import save
    from sfumato.report.table import text_table

    allow_named(*words_of(metrics))
    names = expand(words_of(metrics))
    if refused := [name for name in names if name in tables()]:
        raise OptionError(f"A sweep draws scores, and {refused[0]} is a table. Ask `sfumato evaluate` for it.")
    if n is not None and n < 1:
        raise OptionError(f"--score is at least 1 image; got {n}.")
    command = shlex.join(words)
    tree, path = scoring.sweep(
        runs,
        field,
        n=n,
        metrics=names,
        split=split,
        use=use,
        root=root,
        device=device,
        command=command,
        told=lambda value, point: print(f"  {field} {value}: {point['scores'][0]['value']:.4g}", flush=True),
    )
    for title, rows in tree["tables"].items():
        print(f"\n{title}\n" + text_table([{k: cell(v) for k, v in row.items()} for row in rows]))
    for name, reason in tree["refused"].items():
        print(f"* {name} was not computed: {reason}")
    drawn = []
    for name, numbers in tree["curves"].items():
        target = path.with_name(f"{path.stem}-{name.replace('_', '-')}.png")
        drawn.append(save(CURVES[name][1](numbers), target, command=command))
    print("Written: " + ", ".join(map(str, [path, *drawn])))
