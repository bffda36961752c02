"""Renew docs/results/digits.md from results: `python scripts/digits_page.py RUNS`, RUNS/RECIPE being the runs.

A row is written from the newest result of its run with the sizes and protocols that the page names; rows of runs that
are not there stay as they are. The table over training seeds is of RUNS/RECIPE and RUNS/RECIPE-seed1, -seed2, ...; it
stays as it is where there is but one of each.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sfumato.core.reading import read_json
from sfumato.metrics.score import Score
from sfumato.metrics.spread import over_seeds
from sfumato.report.table import Row, markdown_table

PAGE = Path(__file__).parents[1] / "docs" / "results" / "digits.md"
PROTOCOL = re.compile(r"([0-9a-f]{16})\s+\((FD|KID)\)")  # as the page names those of its table
ROW = re.compile(r"^\| (?P<name>`(?P<recipe>[\w-]+)`(?: \(\*+\))?) \|.*\| [\d.-]+ \|$", re.MULTILINE)  # ends in minutes
OVER_SEEDS = re.compile(r"^\| recipe \| training seeds \|.*(?:\n\|.*)*", re.MULTILINE)
PLACES = {"FD[digits]": 2, "KID[digits]": 3}


def row(name: str, tree: Mapping[str, Any]) -> str:
    """Return the row of a recipe from its result."""
    scores = {score["name"]: score for score in tree["scores"]}
    cells = [
        f"{scores[key]['value']:.{n}f} [{scores[key]['interval'][0]:.{n}f}, {scores[key]['interval'][1]:.{n}f}]"
        for key, n in PLACES.items()
    ]
    facts = tree["provenance"]
    return f"| {name} | {facts['nfe']:g} | {' | '.join(cells)} | {facts['training_seconds'] / 60:.1f} |"


def newest(run: Path, protocols: set[str]) -> dict[str, Any] | None:
    """Return the newest result of a run whose scores are of all of the protocols; None if there is none."""
    for file in sorted(run.glob("results/*.json"), key=lambda file: file.stat().st_mtime, reverse=True):
        tree = read_json(file, finite=False)
        if protocols <= {score["protocol"]["protocol_id"] for score in tree["scores"]}:
            return dict(tree)
    return None


def over_training_seeds(runs: Path, names: Sequence[str], protocols: set[str]) -> str:
    """Return the table over training seeds, with the interval over seeds and images; "" if no recipe has several.

    Arguments:
        runs: Folder of runs, RECIPE and RECIPE-seedK.
        names: Recipes in the order of the rows.
        protocols: Those of the page.
    """
    rows: list[Row] = []
    for name in names:
        folders = [runs / name, *sorted(runs.glob(f"{name}-seed*"))]
        trees = [tree for folder in folders if (tree := newest(folder, protocols)) is not None]
        if len(trees) < 2:
            continue
        line: Row = {"recipe": f"`{name}`", "training seeds": len(trees)}
        for key, places in PLACES.items():
            scores = [Score.from_json(s) for tree in trees for s in tree["scores"] if s["name"] == key]
            found, values = over_seeds(scores), [score.value for score in scores]
            low, high = found.interval
            line[key] = f"{found.mean:.{places}f} [{low:.{places}f}, {high:.{places}f}]"
            line[f"{key}, range"] = f"{min(values):.{places}f} to {max(values):.{places}f}"
        rows.append(line)
    return markdown_table(rows) if rows else ""


def renewed(text: str, runs: Path) -> str:
    """Return the page with the rows of the runs that are in a folder.

    Arguments:
        text: The page.
        runs: Folder of runs, each named as its recipe.
    """
    protocols = {protocol for protocol, _ in PROTOCOL.findall(text)}

    def anew(match: re.Match[str]) -> str:
        tree = newest(runs / match["recipe"], protocols)
        return match[0] if tree is None else row(match["name"], tree)

    text = ROW.sub(anew, text)
    table = over_training_seeds(runs, [match["recipe"] for match in ROW.finditer(text)], protocols)
    return OVER_SEEDS.sub(lambda match: table or match[0], text)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(), Path(sys.argv[1])))
