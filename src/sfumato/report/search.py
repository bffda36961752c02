"""What a search found: the score of every trial against each field, a plot a field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from sfumato.report.plot import COLOURS, MUTED, decades, figure_of, finish, style

ACROSS = 3  # plots beside each other


def search_figure(
    points: Mapping[str, Sequence[tuple[float | str, float, bool]]],
    importances: Mapping[str, float],
    log: Sequence[str],
    score: str,
    caption: str = "",
) -> Figure:
    """Draw the score of each trial against every field; those stopped before the end are hollow.

    Arguments:
        points: For each field, (value, score, whether it was trained to the end) of every trial with a score.
        importances: Share of each field in what tells good trials from all; {} if unknown.
        log: Fields whose axis is logarithmic.
        score: Name of the score.
        caption: What stands below.
    """
    columns = min(ACROSS, len(points))
    figure = figure_of(columns, math.ceil(len(points) / columns), width=3.2, height=2.8)
    for i, (field, found) in enumerate(points.items(), 1):
        ax = figure.add_subplot(math.ceil(len(points) / columns), columns, i)
        share = f" ({importances[field]:.0%})" if field in importances else ""
        style(ax, field.removeprefix("train.") + share, score if i % columns == 1 or columns == 1 else "")
        for whole in (False, True):
            x, y = [v for v, _, done in found if done == whole], [y for _, y, done in found if done == whole]
            edge, face = (COLOURS[0], COLOURS[0]) if whole else (MUTED, "none")
            ax.scatter(x, y, s=26, facecolors=face, edgecolors=edge)
        if field in log:
            ax.set_xscale("log")
            ax.xaxis.set_minor_formatter(NullFormatter())
        if all(y > 0 for _, y, _ in found):
            decades(ax)
    return finish(figure, caption)
