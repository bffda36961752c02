"""``sfumato compare``: two scores of one protocol, or the reason why they cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from sfumato.cli._arguments import refusal

MEASURED = ("images_per_second", "training_seconds")  # of a score's provenance: they make no difference to it
HASHES = ("identity", "recipe")  # of all that made the images

if TYPE_CHECKING:
    from sfumato.report.table import Row


def compare(
    first: Annotated[Positional[str], arg(metavar="FIRST")],
    second: Annotated[Positional[str], arg(metavar="SECOND")],
    more: Annotated[Positional[tuple[str, ...]], arg(metavar="[MORE ...]", help_behavior_hint="")] = (),
) -> int:
    """Compare the scores of two or more runs, if they were made by one protocol.

    Every run is compared with the first. Scores made from the same seeds are compared in pairs: the difference has its
    own interval, in which the noise they share cancels. Different protocols are refused with exit code 3: the fields
    that differ are listed, and no difference is printed.

    Arguments:
        first: A result file, or a run, whose newest score of each metric is taken.
        second: Another result file or run, which is set beside the first.
        more: Further ones, as many as you like.
    """
    from sfumato.cli._next import playing, reporting, show_next
    from sfumato.metrics.score import compare as compared
    from sfumato.report.results import newest_scores
    from sfumato.report.table import Cell, text_table
    from sfumato.runs.run import Run

    a = newest_scores(first)
    rows: list[Row] = []
    told: list[tuple[str, Any, Any]] = []
    for place in (second, *more):
        b = newest_scores(place)
        pairs = [(a[name], b[name]) for name in a if name in b]
        if not pairs:  # the same metric over other features is refused field by field
            pairs = [(x, y) for x in a.values() for y in b.values() if x.protocol.metric == y.protocol.metric]
        if not pairs:
            raise refusal(f"{first} has {', '.join(a)} and {place} has {', '.join(b)}: no metric in common.")
        for x, y in pairs:
            found = compared(x, y)
            rows.append(
                {
                    "score": x.name,
                    first: Cell(x.value, x.interval),
                    "against": place,
                    "its value": Cell(y.value, y.interval),
                    "difference": f"{found.difference:+.4g}{_interval(found.interval)}",
                    "verdict": found.verdict,
                }
            )
            told += [row for row in found.provenance if row[0] not in MEASURED]
    print(text_table(rows))
    said = [row for row in told if row[0] not in HASHES] or told  # a hash differs because of what is said
    if said:
        lines = (f"  {name.replace('_', ' ')}: {_plain(old)} -> {_plain(new)}" for name, old, new in said)
        print("Made differently in:\n" + "\n".join(dict.fromkeys(lines)))
    runs = list(dict.fromkeys(filter(None, map(_run_of, (first, second, *more)))))
    if len(runs) > 1:
        print(
            "These runs are one training each: the intervals hold the noise of images, and another training seed may "
            "turn an order round (`sfumato study` with several seeds has an interval for that)."
        )
    if runs:
        show_next(reporting(*runs), *playing(*map(Run.open, runs)))
    return 0


def _run_of(place: str) -> str | None:
    """Return the run that a run or a result file belongs to, if it lies in one."""
    path = Path(place)
    folder = path.parent.parent if path.is_file() else path
    return str(folder) if (folder / "recipe.json").is_file() else None


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:+.3g}, {interval[1]:+.3g}], paired by seed"


def _plain(value: Any) -> str:
    return "none" if value is None else str(value)
