"""Pictures of the four axes that are functions of the noise level: schedules, grids, draws, weightings.

All are drawn against log SNR = 2 ln(alpha / sigma), the one coordinate in which choices of different papers can be
compared: noise on the left, the clean image on the right. Each function returns a figure and a table of the numbers
that a person asks for, such as how much of the image is left at the end of a schedule,

    abar_T = alpha^2 / (alpha^2 + sigma^2)  and  L_T = KL(q(x_T | x0) || N(0, I))  in bits per dimension.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, section 4. https://arxiv.org/abs/2006.11239
    Kingma, Gao. Understanding Diffusion Objectives as the ELBO with Simple Data Augmentation. 2023.
    https://arxiv.org/abs/2303.00848
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sfumato.core import noise
from sfumato.core.level import Level, Schedule
from sfumato.core.table import Table
from sfumato.report.plot import COLOURS, INK, MUTED, Series, figure_of, finish, lines, style
from sfumato.report.table import Row

Drawn = tuple[Figure, list[Row]]
LOG_SNR = "log SNR   (noise → clean)"
LEFT, RIGHT = -16.0, 16.0  # of log SNR that is shown; what lies beyond is drawn at the edge
LINES = 5  # in a panel: more cannot be told apart
BATCH = 64  # levels of a draw that are shown one by one
QUANTILES = 320 * BATCH  # of a draw, for its density


def schedules(chosen: Mapping[str, Schedule], *, power: float = 0.25, points: int = 401) -> Drawn:
    """Plot the signal that schedules leave, and their log SNR, against time.

    Arguments:
        chosen: Name -> schedule; a `Table` is asked at its own times.
        power: Mean square of an image, for L_T: about 0.25 for photographs in [-1, 1], 1 for data of unit variance.
        points: Times at which a continuous schedule is asked.

    Returns:
        The figure, and rows with abar_T and L_T at the noisy end.
    """
    groups = _groups(chosen)
    figure = figure_of(columns=2, rows=len(groups), width=5.0, height=3.4)
    rows: list[Row] = []
    for g, names in enumerate(groups):
        signal, ratio = (figure.add_subplot(len(groups), 2, 2 * g + k) for k in (1, 2))
        style(signal, "time t   (clean → noise)", "abar = alpha² / (alpha² + sigma²)")
        style(ratio, "time t   (clean → noise)", "log SNR")
        signal_lines, ratio_lines = {}, {}
        for name in names:
            t, level = _times(chosen[name], points)
            inside = level.log_snr.clamp(LEFT, RIGHT)
            signal_lines[name] = Series.of(t.tolist(), level.abar.tolist())
            ratio_lines[name] = Series.of(t.tolist(), inside.tolist())
            rows.append(_schedule_row(name, chosen[name], level[-1], level[0 if float(level.sigma[0]) else 1], power))
        _nested(signal, signal_lines)
        _nested(ratio, ratio_lines)
    caption = f"log SNR is cut off at {LEFT:g} and {RIGHT:g}. L_T in the table takes images of mean square {power:g}."
    return finish(figure, caption, "Schedules"), rows


def _times(schedule: Schedule, points: int) -> tuple[Tensor, Level]:
    if isinstance(schedule, Table):
        return torch.arange(schedule.steps + 1, dtype=torch.float64) / schedule.steps, schedule.levels
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    return t, schedule(t)


def _schedule_row(name: str, schedule: Schedule, end: Level, first: Level, power: float) -> Row:
    return {
        "schedule": name,
        "levels": schedule.steps if isinstance(schedule, Table) else "continuous",
        "abar_T": float(end.abar),
        "L_T (bits/dim)": float(end.prior_bits(power)),
        "log SNR at the end": float(end.log_snr),
        "first noisy sigma/alpha": float(first.nsr),
    }


def grids(chosen: Mapping[str, Level]) -> Drawn:
    """Plot the levels that grids visit, a row of dots each.

    Arguments:
        chosen: Name -> levels from noisy to clean, shape (N + 1,).

    Returns:
        The figure, and rows with the steps and ends of each grid.
    """
    figure, ax = _rows_of_dots(chosen, "sigma / alpha")
    rows: list[Row] = []
    for i, (name, grid) in enumerate(chosen.items()):
        _dots(ax, i, grid[:-1].log_snr, COLOURS[0])
        nsr = grid.nsr[:-1]
        gaps = grid.log_snr[:-1].diff()
        finite = gaps[gaps.isfinite()]
        rows.append(
            {
                "grid": name,
                "steps": len(grid) - 1,
                "first sigma/alpha": float(nsr[0]),
                "last sigma/alpha": float(nsr[-1]),
                "steps above sigma/alpha = 1": int((nsr > 1).sum()),
                "longest step in log SNR": float(finite.max()) if len(finite) else None,
            }
        )
    caption = (
        "A dot is a level that the sampler asks for; after the last one every grid steps to the clean image. Dots on "
        "the left edge lie beyond it: pure noise has log SNR -∞."
    )
    return finish(figure, caption, "Grids"), rows


def draws(chosen: Mapping[str, Callable[[Tensor], Level]]) -> Drawn:
    """Plot how often draws visit each level, and one batch of levels, independent and stratified.

    Arguments:
        chosen: Name -> quantile function, u in (0, 1) -> Level.

    Returns:
        The figure, and rows with quantiles of each draw and the deviation of a batch's mean, drawn both ways.
    """
    groups = _groups(chosen)
    u = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
    figure = figure_of(rows=len(groups) + 1, width=8.0, height=3.1)
    rows: list[Row] = []
    edges = torch.linspace(LEFT, RIGHT, 129, dtype=torch.float64)
    for g, names in enumerate(groups):
        ax = figure.add_subplot(len(groups) + 1, 1, g + 1)
        style(ax, LOG_SNR, "density")
        for i, name in enumerate(names):
            seen = torch.histogram(chosen[name](u).log_snr.clamp(LEFT, RIGHT), edges, density=True).hist
            ax.stairs(seen.tolist(), edges.tolist(), color=COLOURS[i], linewidth=1.8, label=name)
        ax.legend(frameon=False, fontsize=9)
        ax.set_xlim(LEFT, RIGHT)
    ax = figure.add_subplot(len(groups) + 1, 1, len(groups) + 1)
    style(ax, LOG_SNR, "")
    _name_rows(ax, list(chosen))
    independent = noise.uniform(range(BATCH), purpose="plot")
    stratified = noise.stratify(independent, torch.arange(BATCH), BATCH)
    for i, (name, draw) in enumerate(chosen.items()):
        _dots(ax, i - 0.18, draw(independent).log_snr, COLOURS[1])
        _dots(ax, i + 0.18, draw(stratified).log_snr, COLOURS[0])
        rows.append(_draw_row(name, draw, u))
    ax.set_xlim(LEFT, RIGHT)
    caption = (
        f"Below: one batch of {BATCH} levels of each draw, independent (above, orange) and stratified (below, blue). "
        "A draw with a memory is shown as it starts, before it has seen a loss."
    )
    return finish(figure, caption, "Draws"), rows


def _draw_row(name: str, draw: Callable[[Tensor], Level], u: Tensor) -> Row:
    """Return quantiles of a draw, and the deviation of a batch's mean log SNR, independent and stratified."""
    everything = draw(u).log_snr.clamp(LEFT, RIGHT)
    low, middle, high = everything.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)).tolist()
    strata = everything.reshape(BATCH, -1)
    return {
        "draw": name,
        "log SNR, 5%": low,
        "median": middle,
        "95%": high,
        f"sd of the mean of {BATCH}": float(everything.std()) / math.sqrt(BATCH),
        "the same, stratified": float(strata.var(1).mean().sqrt()) / math.sqrt(BATCH),
    }


def weightings(chosen: Mapping[str, tuple[Level, Tensor]]) -> Drawn:
    """Plot what weightings make of an error of the image and of an error of the noise.

    Arguments:
        chosen: Name -> (levels, weight of |D - x0|^2 at each).

    Returns:
        The figure, and rows with both weights at three levels.
    """
    groups = _groups(chosen)
    figure = figure_of(columns=2, rows=len(groups), width=5.0, height=3.6)
    rows: list[Row] = []
    for g, names in enumerate(groups):
        left, right = (figure.add_subplot(len(groups), 2, 2 * g + k) for k in (1, 2))
        style(left, LOG_SNR, "weight of |x0 estimate - x0|²")
        style(right, LOG_SNR, "weight of |noise estimate - noise|²")
        image, eps = {}, {}
        for name in names:
            level, weight = chosen[name]
            shown = (level.log_snr >= LEFT) & (level.log_snr <= RIGHT)
            at, w = level.log_snr[shown], weight[shown]
            image[name] = Series.of(at.tolist(), w.tolist())
            eps[name] = Series.of(at.tolist(), (w * (-at).exp()).tolist())
            rows.append({"weighting": name} | {f"w at log SNR {v:g}": _nearest(at, w, v) for v in (-5, 0, 5)})
        for ax, series in ((left, image), (right, eps)):
            _nested(ax, series)
            ax.set_yscale("log")
            ax.set_ylim(1e-6, 1e7)
            ax.set_xlim(LEFT, RIGHT)
    caption = (
        "The noise's weight is the image's divided by the SNR, since the two errors differ by that factor. Lines that "
        "coincide are drawn inside each other."
    )
    return finish(figure, caption, "Weightings"), rows


def _nearest(at: Tensor, values: Tensor, where: float) -> float:
    return float(values[(at - where).abs().argmin()])


def _nested(ax: Axes, series: Mapping[str, Series]) -> None:
    """Draw lines of falling width, so that one that lies on another leaves it visible."""
    lines(ax, series, markers=False)
    for i, line in enumerate(ax.lines):
        line.set_linewidth(1.4 + 0.9 * (len(series) - 1 - i))
    if len(series) > 1:
        ax.legend(frameon=False, fontsize=9)  # with the new widths


def _groups(chosen: Mapping[str, object]) -> list[list[str]]:
    """Deal names into panels whose lines can be told apart; tables and continuous schedules apart if that helps."""
    discrete = [name for name, value in chosen.items() if isinstance(value, Table)]
    others = [name for name in chosen if name not in discrete]
    names = [*discrete, *others]
    if len(names) <= LINES:
        return [names]
    parts = [part for part in (discrete, others) if part]
    return [piece for part in parts for piece in _pieces(part)]


def _pieces(names: Sequence[str]) -> list[list[str]]:
    count = -(-len(names) // LINES)
    size = -(-len(names) // count)
    return [list(names[i : i + size]) for i in range(0, len(names), size)]


def _rows_of_dots(chosen: Mapping[str, object], top: str) -> tuple[Figure, Axes]:
    """Return a figure with a row per name over log SNR, and sigma / alpha along its upper edge."""
    figure = figure_of(width=9.0, height=1.3 + 0.36 * len(chosen))
    ax = figure.add_subplot()
    style(ax, LOG_SNR, "")
    _name_rows(ax, list(chosen))
    ax.set_xlim(LEFT, RIGHT)
    upper = ax.secondary_xaxis("top")
    ticks = [100.0, 10.0, 1.0, 0.1, 0.01, 0.001]
    upper.set_xticks([-2 * math.log(v) for v in ticks], [f"{v:g}" for v in ticks])
    upper.set_xlabel(top, color=INK)
    upper.tick_params(colors=MUTED, labelcolor=INK, labelsize=9)
    return figure, ax


def _name_rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)


def _dots(ax: Axes, row: float, log_snr: Tensor, colour: str) -> None:
    x = log_snr.clamp(LEFT, RIGHT).tolist()
    ax.plot(x, [row] * len(x), "|" if len(x) > 100 else "o", color=colour, markersize=5, alpha=0.8, clip_on=False)
