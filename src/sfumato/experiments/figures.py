"""What studies draw: scores against a row's x, panels of several metrics, and sheets of every row's first images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from sfumato.experiments.judges import OneClass
from sfumato.experiments.pages import floor_of, score_name, series, words
from sfumato.experiments.study import Outcome, Picture, Pictures, Study
from sfumato.report.curves import against_nfe
from sfumato.report.plot import Series
from sfumato.report.sheet import sheet
from sfumato.runs.run import Run


def curve(xlabel: str, title: str) -> Pictures:
    """Return what draws the first metric of rows against their x, a line for each `Row.line`.

    Arguments:
        xlabel: What x counts.
        title: Title above the plot.
    """

    def draw(study: Study, outcomes: Sequence[Outcome]) -> Mapping[str, Picture]:
        metric = study.metrics[0]
        drawn = series(outcomes, metric)
        if not drawn:
            return {}
        score, caption = score_name(outcomes, metric), words(study, outcomes)
        floor = floor_of(outcomes, metric)
        return {"curve": against_nfe(drawn, score=score, floor=floor, xlabel=xlabel, title=title, caption=caption)}

    return draw


def panels(study: Study, outcomes: Sequence[Outcome]) -> tuple[dict[str, Series], dict[str, float]]:
    """Return the line of every metric of a study that has one line, and the floors, by the score's name.

    Arguments:
        study: Study at its scale.
        outcomes: Outcomes of all rows and seeds, of which some have scores.
    """
    lines, floors = {}, {}
    for metric in study.metrics:
        name = score_name(outcomes, metric)
        (lines[name],) = series(outcomes, metric).values()
        if (lowest := floor_of(outcomes, metric)) is not None:
            floors[name] = lowest
    return lines, floors


def shown(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, Run]]:
    """Return the outcomes of one training seed, the first whose runs are at hand, each with its run.

    Arguments:
        outcomes: Outcomes of all rows and seeds.
    """
    here = [(outcome, outcome.run) for outcome in outcomes if outcome.run is not None]
    return [(outcome, run) for outcome, run in here if outcome.seed == here[0][0].seed]


def words_of_images(study: Study, outcomes: Sequence[Outcome]) -> str:
    """Return the caption of a picture that shows images: of several training seeds, it names the one they are of.

    Arguments:
        study: Study at its scale.
        outcomes: Outcomes of all rows and seeds.
    """
    of = shown(outcomes)[0][0].seed
    return words(study, outcomes) + (f" Images of training seed {of}." if len(study.seeds) > 1 else "")


def sheets(study: Study, outcomes: Sequence[Outcome], columns: int = 10, rows: int = 2) -> Mapping[str, Picture]:
    """Draw the first images of every row that makes any, those of one training seed, one sheet below the other.

    Arguments:
        study: Study at its scale.
        outcomes: Outcomes of all rows and seeds.
        columns: Images across: classes in turn if the model has classes, or the one that the row is about.
        rows: Lines of images of each row of the study.
    """
    parts, names = [], []
    for outcome, run in shown(outcomes):
        if not run.plan.kind.draws:
            continue
        source, seeds, judge = run.source(), range(columns * rows), outcome.row.judge
        labels = torch.arange(len(seeds)) % source.classes if source.classes else None
        if isinstance(judge, OneClass) and (label := judge.label(run)) is not None:
            labels = torch.full((len(seeds),), label)
        parts.append(source(seeds, labels))
        names += [outcome.row.name, *[""] * (rows - 1)]
    if not parts or len({part.shape[1:] for part in parts}) > 1:
        return {}
    many, caption = list(range(columns * rows)) * len(parts), words_of_images(study, outcomes)
    drawn = sheet(torch.cat(parts), columns, row_labels=names, seeds=many, title=study.name, caption=caption)
    return {"sheet": drawn}
