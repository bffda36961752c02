"""The report page: everything known about some runs in one HTML file that opens anywhere, offline.

The page reads result files only (`report.results`); it computes no score. Pictures are data URIs, style and the few
lines of script that sort tables are inline, and there is no request to anywhere. Every number stands beside the id of
its protocol, which leads to the protocol itself, and every result beside the command that makes it again. A section
whose data no result has says which command makes them, so that a page never hides what was not measured.

Eleven sections (`report.sections`): scores, size-matched splits, comparison, samples, nearest neighbours, score
against n, against NFE, guidance, classes, likelihood, health.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from sfumato.report.results import Result, command_of, path_of
from sfumato.report.save import write_whole
from sfumato.report.sections import sections


def write_report(results: Sequence[Result], path: Path | str, *, title: str = "", command: str = "") -> Path:
    """Write one HTML page about all results.

    Arguments:
        results: Results of one or more runs, see `report.results`; pictures are sought relative to each result's
            `folder` (the page's own folder if it has none).
        path: Where to write the page.
        title: Title of the page; the names of the runs if empty.
        command: The command that makes this page again; composed of the runs if empty.

    Returns:
        The path.

    Raises:
        ValueError: If there is no result.
    """
    if not results:
        raise ValueError("A report shows at least one result; got none. `sfumato evaluate RUN` makes one.")
    path = Path(path)
    runs = list(dict.fromkeys(str(r["run"]) for r in results))
    paths = list(dict.fromkeys(map(path_of, results)))
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title or " · ".join(runs),
            recipes=list(dict.fromkeys(str(r["recipe"]) for r in results if r.get("recipe"))),
            command=command or f"sfumato report {' '.join(paths)} -o {path.name}",
            sections=sections(results, path.parent),
            commands=[{"run": r["run"], "text": command_of(r)} for r in results],
            protocols=_protocols(results),
        )
    )
    return write_whole(path, page.encode())


def _protocols(results: Sequence[Result]) -> list[dict[str, str]]:
    """Return every protocol once, without its provenance."""
    found: dict[str, str] = {}
    for result in results:
        for score in result["scores"]:
            for one in (score, score.get("floor") or {}):
                protocol = one.get("protocol") or {}
                if protocol.get("protocol_id"):
                    identity = {k: v for k, v in protocol.items() if k not in ("provenance", "protocol_id")}
                    found.setdefault(protocol["protocol_id"], json.dumps(identity, indent=1, sort_keys=True))
    return [{"id": key, "text": text} for key, text in found.items()]


def _environment() -> Environment:
    loader = PackageLoader("sfumato.report", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
