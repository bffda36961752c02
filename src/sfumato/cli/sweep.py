"""``sfumato sweep``: the same seeds under one setting that varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as own
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import (
    Count,
    Folder,
    Name,
    Overrides,
    Text,
    again,
    allowed,
    device_named,
    refuse_idle,
    settled,
    typed,
)
from sfumato.runs.drawn import SAMPLES

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.core.condition import Label
    from sfumato.core.images import ImageSource
    from sfumato.runs.run import Run
    from sfumato.sources import Maker

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
    """Draw the same seeds under several values of one setting, a block of columns per value.

    What differs between blocks is the setting alone: sfumato sweep RUN guidance=1,1.5,2.5,5
    or sampler=heun,ddim,dpmpp, or grid.steps=4,8,16,32. With --score every value is evaluated too, and the curve (score
    against guidance, against NFE and seconds, or with evaluate.n=500,1000,2000 against n) is kept in RUN/results.

    What a model is told varies in the same way, classes=coat,bag or where.ink=0.2,0.4,1sd, and a second of these gives
    the rows: sfumato sweep RUN where.ink=-1sd,0.3,1sd where.slant=-1sd,1sd

    Arguments:
        run: Directory of a run.
        field: The field of `sample` that varies, classes or where.ATTRIBUTE, and its values.
        overrides: What all blocks share, e.g. grid.steps=12 or where.ink=0.3; with several values of where.ATTRIBUTE or
            classes, a row each.
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
    command = again(sweep, locals())
    print(f"sfumato sweep {run} {field}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.core.find import OptionError
    from sfumato.report import sweep as pictures
    from sfumato.report.save import place, save
    from sfumato.runs.conditions import outside
    from sfumato.runs.making import shared
    from sfumato.runs.run import Run
    from sfumato.sources import classes_named

    opened = Run.open(run)
    asked = _asked(field, overrides)
    path, values = asked.path, asked.values
    swept = [path, *([asked.rows[0]] if asked.rows else [])]
    stem = "-".join(["sweep", *(each.replace(".", "-") for each in swept)])
    target = place(out or opened.path / SAMPLES / f"{stem}.png")
    where = device_named(device)
    scored = score is not None or path.startswith("evaluate.")
    if not scored and (metrics != ("fd",) or split != "test"):
        raise OptionError("--metrics and --split say by what values are scored. Give --score N, or leave them out.")
    if path.startswith("evaluate."):
        refuse_idle(sweep, locals(), ("n", "classes", "out"), f"A sweep of {path}, which draws no images,")
    if scored:
        if asked.told or asked.rows or asked.where:
            raise OptionError(
                "--score evaluates fields of `sample`. What a model is told is drawn here, and judged by: sfumato "
                f"evaluate {run} --metrics obedience"
            )
        runs = {}
        for value in values:
            runs[value] = settled(opened, [*asked.fields, f"{path}={value}"], ("sample", "evaluate"), use)
        _score(runs, path, None if path == "evaluate.n" else score, metrics, split, use, data_root, where, command)
        if path.startswith("evaluate."):
            return 0
    across = PER_CLASS if n is None else n
    if across < 1:
        raise OptionError(f"--n is at least 1 image of a class in each block; got {across}.")
    picked = classes_named(classes, opened.classes)
    seeds, labels, names = _images(asked, picked if classes or picked is None else picked[:CLASSES], across, opened)
    sources, makings = {}, []
    for value in values:
        mine = {path: value} if asked.told else {}
        one = settled(opened, [*asked.fields, *([] if mine else [f"{path}={value}"])], ("sample",), use)
        makings.append(one.making(use))
        cells = [{**asked.where, **mine, **row} for row in asked.each_row]
        for line in dict.fromkeys(line for cell in cells for line in outside(one.recipe, _where(cell))):
            print(f"  {line}")
        source = one.source(use=use, device=where)
        sources[f"{path.split('.')[-1]} {value}"] = _told(one, source, cells, data_root)
    shown = ", ".join(f"{name.removeprefix('where.')}={value}" for name, value in asked.where.items())
    picture = pictures.sweep(
        sources,
        seeds,
        labels,
        across=across,
        row_labels=names,
        title=f"{opened.title}: {' and '.join(swept)}",
        caption=f"{shown and f'Where {shown}. '}Otherwise {shared(makings).sentence}",
    )
    print(f"  {save(picture, target, command=typed())}")
    return 0


@dataclass(frozen=True)
class _Asked:
    """What the words of a sweep ask for: of each setting its name and its values.

    Attributes:
        path: The setting that varies from block to block.
        values: Its values.
        rows: What varies from row to row, classes or where.ATTRIBUTE, and its values; () for nothing.
        where: Attributes that all images have, by where.ATTRIBUTE.
        fields: Assignments that all images share.
    """

    path: str
    values: list[str]
    rows: tuple[str, list[str]] | tuple[()] = ()
    where: dict[str, str] = own(default_factory=dict)
    fields: list[str] = own(default_factory=list)

    @property
    def told(self) -> bool:
        """Whether blocks differ in what the model is told."""
        return _is_told(self.path)

    @property
    def each_row(self) -> list[dict[str, str]]:
        """What the model is told in each row; one entry where rows do not differ in it."""
        return [{self.rows[0]: value} for value in self.rows[1]] if self.rows else [{}]


def _asked(first: str, others: Sequence[str]) -> _Asked:
    """Read the words of a sweep.

    Raises:
        OptionError: If the first has fewer than two values, a value stands twice, or a third setting has several.
    """
    from sfumato.core.find import OptionError

    path, values = _values(first)
    if len(values) < 2:
        raise OptionError(f"A sweep needs one field with at least two values, e.g. guidance=1,2.5,5; got {first!r}.")
    found = _Asked(path, values)
    rows: tuple[str, list[str]] | tuple[()] = ()
    for word in others:
        name, given = _values(word)
        if not _is_told(name):
            found.fields.append(word)
        elif name in (path, *rows[:1], *found.where) or (rows and len(given) > 1) or not given:
            raise OptionError(
                "A sheet has one setting in its columns and one in its rows, each named once, such as "
                f"where.ink=0.2,0.4 where.slant=-1,1; got {' '.join([first, *others])!r}."
            )
        elif len(given) > 1:
            rows = (name, given)
        else:
            found.where[name] = given[0]
    for name, given in ((path, values), *([rows] if rows else [])):
        if again := {value for value in given if given.count(value) > 1}:
            raise OptionError(f"Values of {name} are compared, so each stands once; {min(again)} stands twice.")
    return replace(found, rows=rows)


def _values(word: str) -> tuple[str, list[str]]:
    name, _, text = word.partition("=")
    return name.strip(), [value.strip() for value in text.split(",") if value.strip()]


def _is_told(path: str) -> bool:
    return path == "classes" or path.startswith("where.")


def _where(cell: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes of what a row is told."""
    return {name.removeprefix("where."): value for name, value in cell.items() if name != "classes"}


def _images(
    asked: _Asked, picked: Sequence[int] | None, across: int, run: Run
) -> tuple[list[int], Tensor | None, list[str]]:
    """Return the seeds and the labels of a block, and a name for each of its rows."""
    from sfumato.sources import class_names, in_turn

    allowed(across * max(8, len(picked or ()), len(asked.rows[1]) if asked.rows else 0))
    if asked.rows:
        name, values = asked.rows
        seeds = list(range(across)) * len(values)
        return seeds, in_turn(seeds, picked), [f"{name.split('.')[-1]} {value}" for value in values]
    if picked is None or asked.path == "classes":
        return list(range(8 * across)), None, []
    seeds = list(range(len(picked) * across))
    rows = [label for label in picked for _ in range(across)]
    return seeds, in_turn(seeds, rows), class_names(picked, run.classes)


def _told(run: Run, source: Maker, cells: Sequence[Mapping[str, str]], root: str | None) -> ImageSource:
    """Return a maker of a block's images, whose rows are told one thing each."""
    import torch

    from sfumato.core.condition import NULL, joined, part_of
    from sfumato.runs.resolve import load_data
    from sfumato.sources import class_named

    load = cache(partial(load_data, run.recipe, "test", root))

    def make(seeds: Sequence[int], labels: Label | None = None) -> Tensor:
        each, told = len(seeds) // len(cells), []
        for i, cell in enumerate(cells):
            part = slice(i * each, (i + 1) * each)
            mine = None if labels is None else part_of(labels[part], "label")
            if "classes" in cell:
                label = class_named(cell["classes"], run.classes)
                mine = torch.full((each,), NULL if label is None else label)
            where = _where(cell)
            told.append(run.named(seeds[part], mine, where, lender=run.lender(where, None, load)))
        return source(seeds, told[0] if len(told) == 1 else joined([label for label in told if label is not None]))

    return make


def _score(
    runs: Mapping[str, Run],
    field: str,
    n: int | None,
    metrics: Sequence[str],
    split: str,
    use: str | None,
    root: str | None,
    device: str,
    command: str,
) -> None:
    """Evaluate every value, print the table, and draw the curves beside the result."""
    from sfumato.cli.evaluate import row_table, words_of
    from sfumato.cli.likelihood import draw
    from sfumato.core.find import OptionError
    from sfumato.core.outside import allow_named
    from sfumato.evaluation import sweep as scoring
    from sfumato.evaluation.findings import expand, tables

    allow_named(*words_of(metrics))
    names = expand(words_of(metrics))
    if refused := [name for name in names if name in tables()]:
        raise OptionError(f"A sweep draws scores, and {refused[0]} is a table. Ask `sfumato evaluate` for it.")
    if n is not None:
        allowed(n, "--score")
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
        print(f"\n{title}\n{row_table(rows)}")
    for name, reason in tree["refused"].items():
        print(f"* {name} was not computed: {reason}")
    print("Written: " + ", ".join(map(str, [path, *draw(tree, path)])))
