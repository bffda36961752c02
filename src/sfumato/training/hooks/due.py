"""What a run does beside training: sheets, snapshots, scores. Each is a hook, called after every step on every rank.

A hook decides by itself whether it is due, from the step that was taken. The loop knows nothing of what hooks do, but
how long they take: it counts against a budget of minutes, and once they have had their share of it, what draws and
scores waits for the end (`StepTaken.hurried`). Records, scores and pictures also go to the trackers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sfumato.runs.recipe import Train
from sfumato.training.steps import Steps
from sfumato.training.trackers import Tracker

PARTS = 10  # of the budget, a sheet after each


def go_on() -> None:
    """Never stop."""


@dataclass(frozen=True, slots=True)
class StepTaken:
    """A step that was just taken.

    Attributes:
        first, seen: Images seen before and after it.
        before, spent: Share of the budget spent before and after it.
        leaving: Whether a signal asks to leave; only what is quick is done then.
        hurried: Whether hooks have had their share of a budget of minutes; only what cannot be made later is done then.
        pace: Seconds of training an image so far.
        finished: Whether this is the end of the run, after its last checkpoint; also when a finished run is started.
        anew: Whether what is there already is made again; not when a finished run is started, which trains nothing.
        stop: Asked before every call of a network; a text says why what is being made is left.
    """

    first: int
    seen: int
    before: float
    spent: float
    leaving: bool = False
    hurried: bool = False
    pace: float = 0.0
    finished: bool = False
    anew: bool = True
    stop: Callable[[], str | None] = go_on

    def passed(self, every: int) -> bool:
        """Return whether the step crossed a multiple of `every` images."""
        return self.first // every != self.seen // every

    def passed_part(self, parts: int) -> bool:
        """Return whether the step crossed one of `parts` equal parts of the budget; the end is one."""
        return int(self.before * parts) != int(min(self.spent, 1.0) * parts) or self.finished

    def sheet_due(self, train: Train) -> bool:
        """Return whether a sheet is drawn: as often as a recipe says, ten over the budget unless it does; and last."""
        by_share = train.minutes is not None and train.sheet_every is None
        due = self.passed_part(PARTS) if by_share else self.passed(between_sheets(train))
        return self.finished or (due and not (self.leaving or self.hurried))


def between_sheets(train: Train) -> int:
    """Return the images between two sheets of a budget of images."""
    return train.sheet_every or max(train.batch, train.images // PARTS)


@dataclass(frozen=True, slots=True)
class RunContext:
    """Where a run is and who watches it.

    Attributes:
        folder: The run's directory.
        root: Data root; None for the default.
        fingerprint: Fingerprint of the training data.
        trackers: Trackers that are told of records, scores and pictures; none on ranks other than the first.
        on_sheet: Called with the path of every sheet written.
    """

    folder: Path
    root: Path | str | None
    fingerprint: dict[str, str]
    trackers: tuple[Tracker, ...] = ()
    on_sheet: Callable[[Path], None] | None = None


Hook = Callable[[Steps, StepTaken], None]
