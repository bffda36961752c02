"""The report page: everything known about some runs in one HTML file that opens anywhere, offline.

The page reads what commands left in runs (`report.gather`); it computes no score. Pictures are data URIs, style and the
few lines of script that sort tables are inline, and there is no request to anywhere. Pictures and the curves of
training come first, then the scores (`report.sections`). Every score leads to its protocol, and what made the numbers
stands once, folded, at the end, with the commands that make them again (`report.provenance`). What was not measured is
named there too, with the command that measures it, so that a page never hides a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from sfumato.core.writing import write_whole
from sfumato.report.provenance import protocols, provenance
from sfumato.report.results import Result, path_of, ways_of
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
    made = sections(results, path.parent)
    paths = list(dict.fromkeys(map(path_of, results)))
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title or " · ".join(dict.fromkeys(str(r["run"]) for r in results)),
            runs=_runs(results),
            command=command or f"sfumato report {' '.join(paths)} -o {path.name}",
            sections=[section for section in made if not section.empty],
            missing=[section for section in made if section.empty and section.missing],
            provenance=provenance(results),
            protocols=protocols(results),
        )
    )
    return write_whole(path, page.encode())


def _runs(results: Sequence[Result]) -> list[dict[str, str]]:
    """Return each run once: its name, its recipe, and how its images are made."""
    found: dict[str, dict[str, str]] = {}
    for name, ways in ways_of(results).items():
        made = "".join(ways) if len(ways) < 2 else f"sampled in {len(ways)} ways, which the table of scores names."
        found[name] = {"name": name, "recipe": "", "made": made}
    for result in results:
        run = found[str(result["run"])]
        run["recipe"] = run["recipe"] or str(result.get("recipe") or "")
    return list(found.values())


def _environment() -> Environment:
    loader = PackageLoader("sfumato.report", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
