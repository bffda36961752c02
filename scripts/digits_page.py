"""Renew rows of docs/results/digits.md from results: `python scripts/digits_page.py RUNS`, RUNS/RECIPE being the runs.

A row is written from the newest result of its run with the sizes and protocols that the page names; rows of runs that
are not there stay as they are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfumato.core.reading import read_json

PAGE = Path(__file__).parents[1] / "docs" / "results" / "digits.md"
PROTOCOL = re.compile(r"([0-9a-f]{16})\s+\((FD|KID)\)")  # as the page names those of its table
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

    return re.sub(r"^\| (?P<name>`(?P<recipe>[\w-]+)`(?: \(\*+\))?) \|.*\|$", anew, text, flags=re.MULTILINE)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(), Path(sys.argv[1])))
