"""One page over the results of studies: what held, what did not, and what is undecided.

It reads the JSON that `pages.write` left, and nothing else: every number on the page is one of a study's, with its
interval, n, seeds and floor, beside the command that makes it again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sfumato.core.reading import FileRefusedError, as_written, read_json
from sfumato.experiments.pages import mean_of
from sfumato.experiments.study import titled
from sfumato.report.table import Cell, Row, Value, markdown_table

HEADINGS = {True: "What held", False: "What did not", None: "Undecided"}
EMPTY = {
    True: "No ordering has been found to hold yet.",
    False: "No ordering has been found not to hold.",
    None: "No ordering is undecided.",
}


def results_of(folder: Path) -> list[dict[str, Any]]:
    """Return the results of the studies below a folder, by name and scale.

    Arguments:
        folder: Holds NAME.json files of `sfumato study`, at any depth, or is one of them.

    Raises:
        ValueError: Naming a file that is not JSON.
    """
    found = []
    for file in [folder] if folder.is_file() else sorted(folder.rglob("*.json")):
        try:
            tree = read_json(file, kind=object, finite=False)
        except FileRefusedError as error:
            raise ValueError(f"{error} Run its study again, or move it away.") from None
        if isinstance(tree, dict) and {"question", "orderings", "rows", "command"} <= set(tree):
            found.append({**tree, "file": file})
    return sorted(found, key=lambda tree: (str(tree.get("name")), str(tree.get("scale"))))


def summary(results: Sequence[Mapping[str, Any]], page: Path) -> str:
    """Write the page.

    Arguments:
        results: What `results_of` returned.
        page: Where it will lie, for links.

    Raises:
        FileRefusedError: Naming a file whose values are of another kind than was written.
    """
    for tree in results:
        with as_written(str(tree["file"]), "Run its study again, or move it away."):
            _page([tree], page)
    return _page(results, page)


def _page(results: Sequence[Mapping[str, Any]], page: Path) -> str:
    told = [ordering["holds"] for tree in results for ordering in tree["orderings"]]
    counts = f"{told.count(True)} held, {told.count(False)} did not, {told.count(None)} are undecided"
    parts = [
        "# Studies: what held, what did not, what is undecided",
        "Written by `sfumato studies` from the studies' own results. A claim holds if the 95% interval of the "
        "difference lies above 0, and does not if that of the reverse does. With several training seeds it is the "
        "interval over seeds and images; with one it is that of images, and says nothing of other trainings. The "
        "budget is what would tell a difference as large with a power of 80%. Scores are compared within a study only.",
        f"Of {len(told)} claims {counts}.",
        "## In short",
        _in_short(results, page),
    ]
    for holds, heading in HEADINGS.items():
        rows: list[Row] = [_claim(tree, o, page) for tree in results for o in tree["orderings"] if o["holds"] is holds]
        parts += [f"## {heading}", markdown_table(rows) if rows else EMPTY[holds]]
    table: list[Row] = [
        {
            "study": _link(tree, page),
            "scale": tree["scale"],
            "training seeds": len(tree["seeds"]),
            "floor": _floor(tree),
            "command": f"`{tree['command']}`",
        }
        for tree in results
    ]
    parts += ["## How each was run", markdown_table(table)] if table else []
    return "\n\n".join(parts) + "\n"


def _in_short(results: Sequence[Mapping[str, Any]], page: Path) -> str:
    """Return a row per study: how many orderings held, did not, or could not be told."""
    rows: list[Row] = []
    for tree in results:
        told = [o["holds"] for o in tree["orderings"]]
        rows.append(
            {
                "study": _link(tree, page),
                "question": tree["question"],
                "n": tree["n"],
                "held": told.count(True),
                "did not": told.count(False),
                "undecided": told.count(None),
                "best row": _best(tree),
            }
        )
    return markdown_table(rows) if rows else "No study has been run yet. `sfumato list studies` names them."


def _claim(tree: Mapping[str, Any], ordering: Mapping[str, Any], page: Path) -> Row:
    """Return the row of a claim: its difference between the ends, its seeds, and what would tell if nothing does."""
    low_high = ordering.get("interval")
    row: dict[str, Value] = {
        "study": _link(tree, page),
        "claim": ordering["claim"],
        "said by": ordering["source"] or None,
        "seeds": str(len(tree["seeds"])) if len(tree["seeds"]) > 1 else "1: images only",
        "difference": Cell(ordering["difference"], (low_high[0], low_high[1])) if low_high else None,
        "here": ordering["words"],
    }
    if ordering["holds"] is None:
        row["budget that would tell"] = ordering.get("budget") or None
    return {**row, "command": f"`{tree['command']}`"}


def _link(tree: Mapping[str, Any], page: Path) -> str:
    target = os.path.relpath(Path(tree["file"]).with_suffix(".md"), page.parent)
    return f"[{titled(tree['name'], tree['scale'])}]({Path(target).as_posix()})"


def _scores(tree: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    metric = tree["metrics"][0]
    return [(row["row"], row["scores"][metric]) for row in tree["rows"] if metric in row["scores"]]


def _best(tree: Mapping[str, Any]) -> str | None:
    """Return the row with the lowest first score, mean over training seeds, in words."""
    by_row: dict[str, list[dict[str, Any]]] = {}
    for name, score in _scores(tree):
        by_row.setdefault(name, []).append(score)
    if not by_row:
        return None
    name, scores = min(by_row.items(), key=lambda item: sum(s["value"] for s in item[1]) / len(item[1]))
    return f"{name}: {scores[0]['name']} {mean_of(_numbers(scores))}"


def _numbers(scores: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    return [[s["value"], *s["interval"]] for s in scores]


def _floor(tree: Mapping[str, Any]) -> str | None:
    floors = [score["floor"] for _, score in _scores(tree) if score.get("floor")]
    return str(mean_of(_numbers(floors[:1]))) if floors else None
