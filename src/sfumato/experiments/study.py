"""What a study is: a table of rows, each a trained run and a way to sample it, and the orderings it is asked about.

    run         a recipe, trained once for every training seed; rows with one `run` share it
    settings    overrides of the trained run's sampling, evaluation or image size
    guide       a noisy classifier that guides the row's samples, trained beside the runs
    judge       what is scored: all images the model makes, unless a row says otherwise (`experiments.judges`)
    ordering    rows along which a score is said to rise: by a paper, or by us before measuring

A study says what varies and what is held equal, in words and in its rows. All rows are judged by the same images'
seeds, so two rows of one run are compared in pairs. A study is one file of `sfumato.studies` and one function of its
name, ``families(scale) -> Study``; nothing is registered.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeVar

from sfumato.core.find import UnknownNameError, entries, find_named, nearest
from sfumato.metrics.metric import find_metric
from sfumato.metrics.score import Score
from sfumato.runs.idle import differences
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe

if typing.TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from PIL import Image

    from sfumato.runs.run import Run

Scale = Literal["tiny", "cpu", "cpu28", "lossy", "paper"]
USUAL: Scale = "cpu"  # of the studies' pages; others are named with their scale
SCALES: tuple[str, ...] = typing.get_args(Scale)
Picture = typing.Union["Image.Image", "Figure"]
Pictures = Callable[["Study", Sequence["Outcome"]], Mapping[str, Picture]]
Setting = TypeVar("Setting")


class StudyError(ValueError):
    """A study that contradicts itself, or a size it does not have."""


def titled(name: str, scale: str) -> str:
    """Return the title of a study's results: its name, with its scale unless that is the usual one."""
    return name if scale == USUAL else f"{name}, {scale}"


@dataclass(frozen=True)
class Asked:
    """What a judge is asked to score.

    Attributes:
        study: Says how many images, which metrics and which split.
        recipe: As the row is sampled.
        run: Trained, with that recipe; None for a row without one.
        root: Data root; None for SFUMATO_DATA or the cache.
        device: Where to sample.
        quiet: No progress bar.
    """

    study: Study
    recipe: Recipe
    run: Run | None
    root: Path | str | None
    device: torch.device | str | None
    quiet: bool


class Judge(typing.Protocol):
    """Score what a row shows. A judge is a frozen dataclass: what it looks at is its fields, which its repr shows."""

    def __call__(self, asked: Asked) -> tuple[dict[str, Score], dict[str, Any]]:
        """Return scores by metric, and facts about how they were made ("nfe", "images_per_second")."""
        ...


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: The row's name.
        recipe: Recipe that is trained.
        settings: Overrides of the trained run, e.g. ("sample.grid.steps=10",).
        run: Name of the trained run; the row's own name if empty.
        line: Which line of a figure the row is a point of.
        x: Where on it; None for its measured number of function evaluations.
        paper: The number a paper reports for this row; None if there is none.
        guide: Name of a classifier of `Study.guides` that guides the samples; "" for none.
        judge: Judge of the row; None to score all images of the run by `evaluation.evaluate`.
        untrained: Whether the row has no run: its judge looks at real images only.
    """

    name: str
    recipe: Recipe
    settings: tuple[str, ...] = ()
    run: str = ""
    line: str = ""
    x: float | None = None
    paper: float | None = None
    guide: str = ""
    judge: Judge | None = None
    untrained: bool = False

    @property
    def trained(self) -> str:
        """Name of the run that the row samples."""
        return self.run or self.name

    def sampled(self, resolved: Recipe, classifier: Path | None = None) -> Recipe:
        """Return the recipe by which the row is sampled and judged: the trained one with the row's settings.

        Arguments:
            resolved: Recipe of the row's run, with shape and sigma_data.
            classifier: The run that guides it, if one does; None before that is trained, and then none is named.
        """
        guided = [f"sample.classifier={classifier or self.guide}"] if self.guide else []
        found = override(resolved, [*self.settings, *guided])
        return found if classifier or not self.guide else replace(found, sample=replace(found.sample, classifier=None))


@dataclass(frozen=True)
class Outcome:
    """What a row came to, for one training seed.

    Attributes:
        row: The row that was judged.
        seed: Training seed of its run.
        run: The opened run with the row's settings; None if it diverged.
        scores: Scores by the metric's name, "fd".
        facts: How they were made: NFE, images seen, seconds, sampler.
        failed: Why there are no scores; "" if there are.
    """

    row: Row
    seed: int
    run: Run | None
    scores: dict[str, Score]
    facts: dict[str, Any]
    failed: str = ""

    @property
    def x(self) -> float | None:
        """Position on the axis: the row's own, or the measured number of function evaluations."""
        return self.row.x if self.row.x is not None else self.facts.get("nfe")


@dataclass(frozen=True)
class Ordering:
    """Rows along which a score is said to rise.

    Attributes:
        claim: In words, with N where it matters.
        rows: Names, from the lowest score to the highest.
        metric: Name of the score.
        source: Paper or person that says so.
    """

    claim: str
    rows: tuple[str, ...]
    metric: str = "fd"
    source: str = ""

    @classmethod
    def below(cls, low: str, high: str, source: str = "") -> Ordering:
        """Return the claim that one row scores below another.

        >>> Ordering.below("AdaGN", "addition").claim
        'AdaGN scores below addition'
        """
        return cls(f"{low} scores below {high}", (low, high), source=source)


def no_pictures(study: Study, outcomes: Sequence[Outcome]) -> Mapping[str, Picture]:
    """Draw nothing."""
    return {}


@dataclass(frozen=True)
class Study:
    """A question and the table that answers it.

    Attributes:
        name: Name of its file and function, with dashes.
        scale: Size at which this is: tiny, cpu, cpu28, lossy or paper.
        question: The question, in one sentence.
        varies: What differs between rows.
        equal: What does not.
        by: What `Row.x` counts, the heading of its column; "" for no such column.
        rows: Lines of the table, at least one.
        metrics: Names of metrics; the first is the one rows are ranked by.
        n: Generated images a row is judged by.
        seeds: Training seeds; each run is trained once for each.
        split: Split of the real images to compare with.
        orderings: Claims that the scores are to answer.
        paper: Where the numbers of `Row.paper` come from.
        ranked: Whether rows are sorted by the first metric.
        guides: Noisy classifiers to train, by name.
        starts: The run that a run needs, by name: a student's teacher (`train.start`), or the autoencoder that encodes
            what it is trained on, where its recipe names one (`data.latent`).
        timed: Whether the table shows minutes of training and images sampled per second.
        plain: Whether the table shows the textbook value of the first metric, with its finite-sample bias.
        varied: Fields of a score's protocol that differ between rows because the study varies them.
        pictures: Draws figures and sheets from the outcomes.
    """

    name: str
    scale: str
    question: str
    varies: str
    equal: str
    by: str = ""
    rows: tuple[Row, ...] = ()
    metrics: tuple[str, ...] = ("fd", "kid")
    n: int = 2000
    seeds: tuple[int, ...] = (0,)
    split: str = "test"
    orderings: tuple[Ordering, ...] = ()
    paper: str = ""
    ranked: bool = False
    pictures: Pictures = field(default=no_pictures, repr=False)
    guides: Mapping[str, Recipe] = field(default_factory=dict)
    starts: Mapping[str, str] = field(default_factory=dict)
    timed: bool = False
    plain: bool = False
    varied: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if not names or len(set(names)) != len(names) or not self.seeds:
            raise StudyError(f"{self.name} needs rows with distinct names and a seed; got {names}, {self.seeds}.")
        for each, what in ((names, "results of rows"), ([*self.runs, *self.guides], "runs")):
            for a, b in combinations(each, 2):
                if slug(a) == slug(b) and a != b:
                    raise StudyError(f"{self.name}: the {what} {a!r} and {b!r} would be one file, {slug(a)!r}.")
        for metric in self.metrics:
            find_metric(metric)
        for name, recipe in self.runs.items():
            for row in self.rows:
                if row.trained == name and (changed := differences(recipe, row.recipe)):
                    raise StudyError(f"{self.name}: rows of run {name!r} train different recipes: {changed}.")
        for row in self.rows:
            if row.guide and row.guide not in self.guides:
                raise StudyError(nearest(f"guide of row {row.name} in {self.name}", row.guide, self.guides))
        for teacher in self.starts.values():
            if teacher not in self.runs or teacher in self.starts:
                raise StudyError(nearest(f"run that a run of {self.name} begins from", teacher, self.runs))
        for ordering in self.orderings:
            for row_name in ordering.rows:
                if row_name not in names:
                    raise StudyError(nearest(f"row in an ordering of {self.name}", row_name, names))
            if ordering.metric not in self.metrics or len(ordering.rows) < 2:
                raise StudyError(f"{self.name}: '{ordering.claim}' needs two rows and a metric of {self.metrics}.")

    @property
    def runs(self) -> dict[str, Recipe]:
        """The recipes to train, by name, in order of first use."""
        first: dict[str, Recipe] = {}
        for row in self.rows:
            if not row.untrained:
                first.setdefault(row.trained, row.recipe)
        return first

    def resized(self, **fields: Any) -> Study:
        """Return the study with fields replaced, e.g. n or seeds."""
        return replace(self, **fields)

    def only(self, names: Sequence[str]) -> Study:
        """Return the study with some of its rows, in its own order, and the orderings that are between them.

        Raises:
            StudyError: For a row it does not have; the nearest is offered.
        """
        known = [row.name for row in self.rows]
        for name in names:
            if name not in known:
                raise StudyError(nearest(f"row of {self.name}", name, known))
        rows = tuple(row for row in self.rows if row.name in names)
        orderings = tuple(o for o in self.orderings if set(o.rows) <= set(names))
        used, trained = {row.guide for row in rows}, {row.trained for row in rows}
        guides = {name: recipe for name, recipe in self.guides.items() if name in used}
        if lost := {teacher for run, teacher in self.starts.items() if run in trained} - trained:
            raise StudyError(
                f"{self.name}: rows of a student need those of its teacher; add a row of {', '.join(lost)}."
            )
        starts = {run: teacher for run, teacher in self.starts.items() if run in trained}
        return replace(self, rows=rows, orderings=orderings, guides=guides, starts=starts)


def studies() -> dict[str, Callable[..., Study]]:
    """Return every study by name."""
    return entries("study")


def slug(name: str) -> str:
    """Return a name as part of a file's name.

    >>> slug("DDIM, eta = 0.2")
    'ddim-eta-0.2'
    """
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def variant(recipe: Recipe, name: str, fields: Sequence[str] = ()) -> Recipe:
    """Return a recipe with other fields, named RECIPE-NAME.

    Arguments:
        recipe: What the variant differs from.
        name: What it is called, in words.
        fields: Overrides such as "train.images=1000".
    """
    return replace(override(recipe, fields), name=f"{recipe.name}-{slug(name)}")


def find_study(name: str, scale: str) -> Study:
    """Return a study at a size.

    Arguments:
        name: Name of the study; dashes and underscores are the same.
        scale: "tiny", "cpu", "cpu28", "lossy" or "paper".

    Raises:
        UnknownNameError: For an unknown study; the nearest is offered.
        StudyError: For a size it does not have.
    """
    known = studies()
    if ":" not in name and name.replace("_", "-") not in known:
        raise UnknownNameError(nearest("study", name, known))
    if scale not in SCALES:
        raise StudyError(nearest("scale", scale, SCALES))
    return find_named("study", name)(scale)


def at(scale: str, sizes: Mapping[str, Setting]) -> Setting:
    """Return a study's settings at a scale.

    Arguments:
        scale: A key of `sizes`.
        sizes: Settings by scale.

    Raises:
        StudyError: If the study does not exist at that scale.
    """
    if scale not in sizes:
        raise StudyError(nearest("scale of this study", scale, sizes))
    return sizes[scale]
