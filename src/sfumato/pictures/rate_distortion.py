"""The rate-distortion curve of a run, from what `sfumato likelihood` has measured."""

from __future__ import annotations

from matplotlib.figure import Figure

from sfumato.report.results import curve_of
from sfumato.runs.run import Run


def rate_distortion(run: Run) -> Figure:
    """Bits sent against the distortion of x0-hat; needs `sfumato likelihood` first.

    Arguments:
        run: The run, measured.
    """
    from sfumato.report.curve_kinds import CURVES

    numbers = curve_of(run.path, "rate_distortion", f"sfumato likelihood {run.path}")
    return CURVES["rate_distortion"][1]({**numbers, "title": run.title})
