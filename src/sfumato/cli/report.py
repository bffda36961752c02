"""``sfumato report``: everything known about runs on one page."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Folder, Name, refusal


def report(
    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN ...", help_behavior_hint="")],
    *,
    out: Folder = None,
    title: Name = None,
) -> int:
    """Put the results and pictures of runs on one HTML page that needs nothing else.

    It computes nothing. It shows what other commands have left in the runs: sheets, curves, scores, sweeps, restored
    pictures, likelihoods. Each number stands beside its protocol and the command that makes it again; for what is
    missing, the page names the command that makes it.

    Arguments:
        runs: Directories of runs, or result files.
        out: The page, .html; RUN/report.html of the first run unless given (-o for short).
        title: Title of the page; the names of the runs unless given.
    """
    from sfumato.core.reading import as_written
    from sfumato.report.gather import read_report
    from sfumato.report.page import write_report

    if not runs:
        raise refusal("A report shows at least one run: sfumato report runs/NAME -o report.html")
    target = Path(out) if out else Path(runs[0]) / "report.html"
    if target.suffix not in (".html", ".htm"):
        raise refusal(f"The page is written as HTML; got {target.name!r}. Name it {target.stem}.html.")
    words = ["sfumato", "report", *runs, "-o", str(target), *(["--title", title] if title else [])]
    with as_written(f"A result of {', '.join(runs)}", "Evaluate the run again."):
        results = read_report([Path(run) for run in runs])
        path = write_report(results, target, title=title or "", command=shlex.join(words))
    count = len({result["path"] for result in results})
    print(f"  {path}: {path.stat().st_size / 1e6:.2f} MB, {len(results)} results of {count} run{'s' * (count > 1)}")
    return 0
