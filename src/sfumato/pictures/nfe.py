"""A score against function evaluations, from what `sfumato sweep --score` has measured."""

from __future__ import annotations

from matplotlib.figure import Figure

from sfumato.report.results import curve_of
from sfumato.runs.run import Run


def nfe(run: Run) -> Figure:
    """The score of each sampler for its cost; needs `sfumato sweep RUN grid.steps=... --score N` first.

    Arguments:
        run: The run, measured.
    """
    from sfumato.report.curve_kinds import CURVES

    command = f"sfumato sweep {run.path} grid.steps=4,8,16,32 --score 1000"
    return CURVES["nfe"][1]({**curve_of(run.path, "nfe", command), "title": run.title})
