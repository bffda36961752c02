"""Curves of a score against one thing that was varied: function evaluations, guidance, number of images, rate.

Every function takes numbers (`Series`) and returns a Figure; intervals are 95% intervals of sampling noise. A floor,
the score of real images at the same sizes, is drawn where it is known: nothing below it can be told from real images.

The fit of `against_size` is the least-squares line  FD(n) = FD_inf + c / n  through FD against 1/n; its intercept is
the score of infinitely many generated images.

References:
    Chong, Forsyth. Effectively Unbiased FID and Inception Score and Where to Find Them. 2020.
    https://arxiv.org/abs/1911.07023
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, figure 5. https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from sfumato.metrics.metric import better_of
from sfumato.report.plot import (
    COLOURS,
    INK,
    MUTED,
    WIDTH,
    Series,
    axes,
    decades,
    doublings,
    figure_of,
    finish,
    level_line,
    lines,
    style,
)
from sfumato.report.table import Cell, number


def against_nfe(
    series: Mapping[str, Series],
    *,
    score: str = "FD",
    floor: float | None = None,
    xlabel: str = "function evaluations per image (NFE)",
    title: str = "",
    caption: str = "",
) -> Figure:
    """Plot a score against the function evaluations (or seconds) per image, a line per sampler.

    Arguments:
        series: Sampler -> score against NFE, x > 0.
        score: Name of the score.
        floor: The same score of real images; None if unknown.
        xlabel: What the x axis counts.
        title: Text above the plot.
        caption: Text below it.
    """
    figure, ax = axes(xlabel, score, title)
    lines(ax, series)
    doublings(ax, [x for s in series.values() for x in s.x])
    values = [y for s in series.values() for y in s.y]
    logarithmic = min(values) > 0 and max(values) > 20 * min(values)
    if logarithmic:
        decades(ax)
    if floor is not None and logarithmic and floor <= 0:
        caption = f"The floor, {number(floor)}, lies below a logarithmic axis. {caption}"
    elif floor is not None:
        level_line(ax, floor, f"floor {number(floor)}")
    return finish(figure, caption)


def against_guidance(
    panels: Mapping[str, Series],
    *,
    floors: Mapping[str, float] | None = None,
    weight: str = "guidance weight w",
    title: str = "",
    caption: str = "",
) -> Figure:
    """Plot scores against the guidance weight, a panel per score: fidelity is bought with variety.

    Arguments:
        panels: Score -> its values against w, for example FD, precision and recall.
        floors: Score -> the same of real images.
        weight: Name of the axis.
        title: Text above the panels.
        caption: Text below them.
    """
    figure = figure_of(columns=len(panels), width=3.9, height=3.6)
    for i, (name, s) in enumerate(panels.items()):
        ax = figure.add_subplot(1, len(panels), i + 1)
        style(ax, weight, name)
        lines(ax, {"": s})
        if (better := better_of(name)) != "neither":
            best = int(np.argmin(s.y) if better == "lower" else np.argmax(s.y))
            ax.plot(s.x[best], s.y[best], marker="o", markersize=12, fillstyle="none", color=COLOURS[1])
        if floors and name in floors:
            level_line(ax, floors[name], f"real {number(floors[name])}")
        ax.margins(y=0.12)
    return finish(figure, f"A ring marks the best value. {caption}", title)


def precision_recall(
    fronts: Mapping[str, Series], labels: Mapping[str, Sequence[str]], *, title: str = "", caption: str = ""
) -> Figure:
    """Plot precision against recall along a sweep.

    Arguments:
        fronts: Sweep -> precision (y) at recall (x).
        labels: Sweep -> a label per point, for example "w = 2.5"; may lack sweeps.
        title: Text above the plot.
        caption: Text below it.
    """
    figure, ax = axes("recall", "precision", title)
    lines(ax, fronts)
    for i, (name, s) in enumerate(fronts.items()):
        for x, y, text in zip(s.x, s.y, labels.get(name, ())):
            ax.annotate(
                text, (x, y), xytext=(6, 5), textcoords="offset points", fontsize=8, color=COLOURS[i % len(COLOURS)]
            )
    ax.margins(0.12)
    return finish(figure, caption)


def fit_against_size(s: Series) -> tuple[float, float]:
    """Return (FD_inf, c) of the least-squares line FD(n) = FD_inf + c / n, points weighted by their intervals if known.

    >>> fit = fit_against_size(Series.of([1000, 2000, 4000], [12.0, 11.0, 10.5]))
    >>> [round(v, 6) for v in fit]
    [10.0, 2000.0]
    """
    weight = 1 / np.maximum(np.subtract(s.high, s.low), 1e-12) if s.low else None
    c, limit = np.polyfit(1 / np.asarray(s.x), np.asarray(s.y), 1, w=weight)
    return float(limit), float(c)


def against_size(series: Mapping[str, Series], *, score: str = "FD", title: str = "", caption: str = "") -> Figure:
    """Plot a score against 1/n with the line that extrapolates it to infinitely many images.

    Arguments:
        series: Name -> score against the number of generated images n; at least two sizes each.
        score: Name of the score.
        title: Text above the plot.
        caption: Text below it.

    Raises:
        ValueError: If a series has fewer than two sizes.
    """
    figure, ax = axes("generated images n (axis linear in 1/n)", score, title)
    shown = {}
    for name, s in series.items():
        if len(set(s.x)) < 2:
            raise ValueError(f"A fit against 1/n needs two sizes; {name!r} has {len(set(s.x))}.")
        limit, c = fit_against_size(s)
        shown[f"{name}: {score}∞ = {number(limit)}, slope {number(c)}"] = limit, c, s
    for i, (name, (limit, c, s)) in enumerate(shown.items()):
        colour = COLOURS[i % len(COLOURS)]
        x = 1 / np.asarray(s.x)
        ax.plot([0, x.max()], [limit, limit + c * x.max()], color=colour, linewidth=1.4, label=name)
        ax.plot(x, s.y, "o", color=colour, markersize=5)
        if s.low:
            ax.vlines(x, s.low, s.high, color=colour, linewidth=1.2)
        ax.plot(0, limit, "o", color=colour, markersize=8, fillstyle="none", clip_on=False)
    sizes = sorted({n for s in series.values() for n in s.x})
    ticks: list[float] = []
    for n in sizes:  # small n are far apart in 1/n, large ones crowd
        if all(abs(1 / n - 1 / other) > 0.07 / sizes[0] for other in ticks) and 1 / n > 0.07 / sizes[0]:
            ticks.append(n)
    ax.set_xticks([0, *(1 / n for n in ticks)], ["∞", *(f"{n:,.0f}" for n in ticks)])
    ax.set_xlim(left=0)
    ax.legend(frameon=False, fontsize=9)
    return finish(figure, caption)


def class_bars(scores: Mapping[str, Mapping[str, Cell]], *, score: str = "KID", title: str = "") -> Figure:
    """Plot a score per class, a bar per model in each class.

    Arguments:
        scores: Model -> class -> score; classes may be missing.
        score: Name of the score.
        title: Text above the plot.
    """
    classes = list(dict.fromkeys(c for by_class in scores.values() for c in by_class))
    figure, ax = axes("", score, title)
    width = 0.8 / len(scores)
    for i, (model, by_class) in enumerate(scores.items()):
        there = [c for c in classes if c in by_class]
        at = [classes.index(c) + (i - (len(scores) - 1) / 2) * width for c in there]
        ax.bar(at, [by_class[c].value for c in there], 0.92 * width, color=COLOURS[i % len(COLOURS)], label=model)
        for x, c in zip(at, there):
            if (interval := by_class[c].interval) is not None:
                ax.vlines(x, *interval, color=INK, linewidth=1.2)
    turned = max(map(len, classes)) * len(classes) > 70
    ax.set_xticks(range(len(classes)), classes, rotation=40 if turned else 0, ha="right" if turned else "center")
    ax.grid(False, axis="x")
    ax.axhline(0, color=MUTED, linewidth=0.8)
    if len(scores) > 1:
        ax.legend(frameon=False, fontsize=9)
    return finish(figure)


def rate_distortion(
    curves: Mapping[str, Series],
    by_time: Mapping[str, tuple[Series, Series]] | None = None,
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Plot distortion against rate, and both against time if they are given.

    Arguments:
        curves: Name -> RMSE on 0..255 (y) at a rate in bits/dim (x).
        by_time: Name -> (rate, distortion), each against the number of reverse steps done.
        title: Text above the plots.
        caption: Text below them.
    """
    count = 3 if by_time else 1
    figure = figure_of(columns=count, width=3.9 if by_time else 6.4, height=3.6 if by_time else 4.2)
    wide = figure.add_subplot(1, count, count)
    style(wide, "rate (bits/dim)", "distortion (RMSE on 0..255)")
    lines(wide, curves, markers=all(len(s.x) <= 40 for s in curves.values()))
    for i, label in enumerate(("rate (bits/dim)", "distortion (RMSE on 0..255)") if by_time else ()):
        ax = figure.add_subplot(1, count, i + 1)
        style(ax, "reverse steps done", label)
        lines(ax, {name: pair[i] for name, pair in (by_time or {}).items()}, markers=False)
    return finish(figure, caption, title)


def panels(shown: Mapping[str, Series], *, xlabel: str, title: str = "", caption: str = "") -> Figure:
    """Plot several quantities against the same thing, a panel each.

    Arguments:
        shown: Name of the quantity -> its values.
        xlabel: What the x axis shows.
        title: Text above the panels.
        caption: Text below them.
    """
    figure = figure_of(columns=len(shown), width=4.6, height=3.6)
    for i, (name, s) in enumerate(shown.items()):
        ax = figure.add_subplot(1, len(shown), i + 1)
        style(ax, xlabel, name)
        lines(ax, {"": s})
    return finish(figure, caption, title)


def accuracy(curves: Mapping[str, Series], *, chance: float | None = None, title: str = "") -> Figure:
    """Plot how well a classifier reads noisy images, against the noise level.

    Arguments:
        curves: Split -> share of images named right (y) at ln SNR (x).
        chance: The share that a guess names right.
        title: Above the plot.
    """
    figure, ax = axes("ln SNR (left: noise, right: clean)", "accuracy", title)
    lines(ax, curves)
    if chance is not None:
        level_line(ax, chance, f"chance {number(chance)}")
    return finish(figure, "Share of images named right; 95% intervals.")


def probes(
    curves: Mapping[str, Series],
    *,
    pixels: float,
    pca: float,
    numbers: int,
    chance: float,
    noisy: str = "",
    title: str = "",
    caption: str = "",
) -> Figure:
    """Plot what a linear classifier reads in the blocks of a network: against the noise level, and block by block.

    Arguments:
        curves: Block -> accuracy (y) at sigma / alpha (x), in the order of the network.
        pixels: Accuracy on raw pixels.
        pca: Accuracy on principal components of them.
        numbers: Number of those components.
        chance: Share of the most frequent class.
        noisy: Name of the curve that is no block's: the pixels that the network saw.
        title: Above the plots.
        caption: Below them.
    """
    blocks = {name: s for name, s in curves.items() if name != noisy}
    levels = next(iter(blocks.values())).x
    several = len(levels) > 1
    figure = figure_of(1 + several, width=1.3 * WIDTH)
    by_block = figure.add_subplot(1, 1 + several, 1 + several)
    style(by_block, "block, from input to output", "accuracy")
    by_level = {
        f"sigma/alpha = {x:.3g}" if several else "network": Series.of(
            range(len(blocks)), *([getattr(s, key)[i] for s in blocks.values()] for key in ("y", "low", "high"))
        )
        for i, x in enumerate(levels)
    }
    lines(by_block, by_level)
    by_block.set_xticks(range(len(blocks)), list(blocks), rotation=30, ha="right", fontsize=8)
    plots = [by_block]
    if several:
        ax = figure.add_subplot(1, 2, 1)
        style(ax, "noise level sigma / alpha (left: clean, right: noise)", "accuracy")
        lines(ax, curves)
        doublings(ax, levels)
        plots.append(ax)
    known = {f"pixels {pixels:.3f}": (pixels, "--"), f"PCA, {numbers} numbers {pca:.3f}": (pca, ":")}
    for ax in plots:
        for name, (value, dashes) in (known | {f"chance {chance:.3f}": (chance, "-.")}).items():
            ax.axhline(value, color=MUTED, linewidth=1.2, linestyle=dashes, label=name)
        ax.set_ylim(0, 1.02)
        ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return finish(figure, f"Share of held-out images named right by a linear classifier. {caption}", title)


def bits_by_level(curves: Mapping[str, Series], *, title: str = "", caption: str = "") -> Figure:
    """Plot where the bits of a bound are spent, against the noise level.

    Arguments:
        curves: Name -> bits/dim per unit of ln SNR (y) at ln SNR (x).
        title: Text above the plot.
        caption: Text below it.
    """
    figure, ax = axes("ln SNR (left: noise, right: clean)", "bits/dim per unit of ln SNR", title)
    lines(ax, curves, markers=False)
    ax.set_ylim(bottom=0)
    return finish(figure, caption)


def distances(groups: Mapping[str, Sequence[float]], *, space: str = "pixel", title: str = "") -> Figure:
    """Plot histograms of nearest-neighbour distances: generated to train beside test to train.

    Arguments:
        groups: Name -> distances.
        space: Space in which they were measured.
        title: Text above the plot.
    """
    figure, ax = axes(f"distance to the nearest training image ({space} space)", "share of images", title)
    everything = np.concatenate([np.asarray(values, dtype=np.float64) for values in groups.values()])
    edges = np.histogram_bin_edges(everything, bins=min(40, max(10, int(len(everything) ** 0.5))))
    for i, (name, values) in enumerate(groups.items()):
        counts, _ = np.histogram(values, edges)
        ax.stairs(
            counts / len(values),
            edges,
            color=COLOURS[i % len(COLOURS)],
            linewidth=1.8,
            label=f"{name} (n = {len(values):,}, median {np.median(values):.3g})",
        )
    ax.set_ylim(top=1.25 * ax.get_ylim()[1])  # space for the legend
    ax.legend(frameon=False, fontsize=9)
    return finish(figure)
