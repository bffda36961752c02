"""``sfumato compare``: two scores of one protocol, or the reason why they cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from sfumato.metrics.score import Score


def compare(
    first: Annotated[Positional[str], arg(metavar="FIRST")],
    second: Annotated[Positional[str], arg(metavar="SECOND")],
) -> int:
    """Compare the scores of two runs, if they were made by one protocol.

    Different protocols are refused with exit code 3: the fields that differ are listed, and no difference is printed.

    Arguments:
        first: A result file, or a run, whose newest score of each metric is taken.
        second: The same.
    """
    from sfumato.core.find import OptionError
    from sfumato.metrics.score import compare as compared
    from sfumato.report.table import text_table

    a, b = newest_scores(first), newest_scores(second)
    shared = [metric for metric in a if metric in b]
    if not shared:
        raise OptionError(f"{first} has {', '.join(a)} and {second} has {', '.join(b)}: no metric in common.")
    rows, told = [], []
    for metric in shared:
        found = compared(a[metric], b[metric])
        rows.append(
            {
                "score": a[metric].name,
                first: f"{a[metric].value:.4g} [{a[metric].interval[0]:.4g}, {a[metric].interval[1]:.4g}]",
                second: f"{b[metric].value:.4g} [{b[metric].interval[0]:.4g}, {b[metric].interval[1]:.4g}]",
                "difference": f"{found.difference:+.4g}",
                "verdict": found.verdict,
            }
        )
        told += [f"  {name}: {old} -> {new}" for name, old, new in found.provenance]
    print(text_table(rows))
    if told:
        print("Made differently in:\n" + "\n".join(dict.fromkeys(told)))
    return 0


def newest_scores(place: str) -> dict[str, Score]:
    """Return the scores of a result file, or the newest of each metric of a run, by metric.

    Arguments:
        place: Path of either.

    Raises:
        ValueError: If there is no result.
    """
    from sfumato.metrics.score import Score
    from sfumato.report.results import read_results

    trees: list[dict[str, Any]] = read_results([Path(place)])
    scores = [Score.from_json(values) for tree in trees for values in tree["scores"]]
    return {score.protocol.metric: score for score in scores}
