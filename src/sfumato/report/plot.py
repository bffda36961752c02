"""The common style of curves: figures without global state, colours that survive colour blindness, words below.

A `Series` is a line with the interval of each of its points; its JSON form {"x": [...], "y": [...], "low": [...],
"high": [...]} is what result files hold, so that every curve can be drawn again from its numbers.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

# Okabe and Ito's palette, darkest first, without its yellow
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#1c1c20")
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, MUTED, RULE = "#1c1c20", "#606068", "#dddde2"
WIDTH, HEIGHT = 6.4, 4.2  # inches of one plot


@dataclass(frozen=True, slots=True)
class Series:
    """A line, each point with the interval it lies in.

    Attributes:
        x: Positions along the x axis.
        y: Values, as many.
        low: Lower ends of the 95% intervals; () if unknown.
        high: Upper ends; () if unknown.

    Raises:
        ValueError: If the lengths differ.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        lengths = [len(self.x), len(self.y), len(self.low) or len(self.x), len(self.high) or len(self.x)]
        if len(set(lengths)) > 1 or bool(self.low) != bool(self.high):
            raise ValueError(
                f"A series has one y per x and one low and high per y, or neither; got {len(self.x)} x, "
                f"{len(self.y)} y, {len(self.low)} low and {len(self.high)} high."
            )

    @classmethod
    def of(
        cls, x: Sequence[float], y: Sequence[float], low: Sequence[float] = (), high: Sequence[float] = ()
    ) -> Series:
        """Make a series of any sequences of numbers."""
        return cls(*(tuple(float(v) for v in values) for values in (x, y, low, high)))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Series:
        """Read the JSON form; low and high may be missing."""
        return cls.of(values["x"], values["y"], values.get("low") or (), values.get("high") or ())

    def to_json(self) -> dict[str, list[float]]:
        """Return the JSON form."""
        return {key: list(getattr(self, key)) for key in ("x", "y", "low", "high") if getattr(self, key)}


def figure_of(columns: int = 1, rows: int = 1, width: float = WIDTH, height: float = HEIGHT) -> Figure:
    """Return an empty figure with its own canvas."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def style(ax: Axes, xlabel: str, ylabel: str, title: str = "") -> None:
    """Give a plot the common style."""
    ax.set_xlabel(xlabel, color=INK)
    ax.set_ylabel(ylabel, color=INK)
    if title:
        ax.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    ax.grid(True, color=RULE, linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(MUTED)
    ax.tick_params(colors=MUTED, labelcolor=INK, labelsize=9)


def axes(xlabel: str, ylabel: str, title: str = "") -> tuple[Figure, Axes]:
    """Return a figure of one styled plot."""
    figure = figure_of()
    ax = figure.add_subplot()
    style(ax, xlabel, ylabel, title)
    return figure, ax


def lines(
    ax: Axes, series: Mapping[str, Series], *, markers: bool = True, alike: Mapping[str, str] | None = None
) -> None:
    """Draw lines with their intervals as bands, one colour and marker each, and a legend if they are named.

    Arguments:
        ax: Where to draw.
        series: Name -> line.
        markers: Whether its points are marked.
        alike: Name -> what is equal for lines that are the same but for their seed: these are thin, of one colour.
    """
    kinds = {name: (alike or {}).get(name, name) for name in series}
    members = {kind: [name for name in kinds if kinds[name] == kind] for kind in kinds.values()}
    for name, s in series.items():
        i, same = list(members).index(kinds[name]), members[kinds[name]]
        again, place = divmod(i, len(COLOURS))  # a colour comes again with another marker, dashed
        colour = COLOURS[place]
        marker = MARKERS[(place + again) % len(MARKERS)] if markers else None
        label = name if len(same) == 1 else f"{', '.join(same[:3])}{', ...' * (len(same) > 3)} ({len(same)} seeds)"
        width = 1.8 if len(same) == 1 else 0.9
        dashes = DASHES[again % len(DASHES)]
        ax.plot(s.x, s.y, dashes, color=colour, marker=marker, markersize=5, linewidth=width,
                label=label if label and name == same[0] else None)  # fmt: skip
        if s.low:
            ax.fill_between(s.x, s.low, s.high, color=colour, alpha=0.16, linewidth=0)
            if markers:
                ax.vlines(s.x, s.low, s.high, color=colour, linewidth=1.2)
    if all(float(x).is_integer() for s in series.values() for x in s.x):
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    if len(members) > 1 or any(len(same) > 1 for same in members.values()):
        ax.legend(frameon=False, fontsize=9)


def doublings(ax: Axes, values: Sequence[float]) -> None:
    """Make the x axis logarithmic with the given values as plain numbers at its ticks, as many as stay apart."""
    ax.set_xscale("log", base=2)
    chosen: list[float] = []
    for value in sorted(set(values)):
        if not chosen or value >= 1.35 * chosen[-1]:
            chosen.append(value)
    ax.xaxis.set_ticks(chosen)
    ax.xaxis.set_major_formatter("{x:.3g}" if max(values) < 1000 else "{x:,.0f}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def decades(ax: Axes) -> None:
    """Make the y axis logarithmic, with plain numbers at its ticks."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def level_line(ax: Axes, value: float, name: str) -> None:
    """Draw a horizontal dashed line with its name, such as the floor of a score."""
    ax.axhline(value, color=MUTED, linewidth=1.2, linestyle=(0, (5, 3)))
    ax.annotate(
        name,
        (0, value),
        xycoords=("axes fraction", "data"),
        xytext=(4, 3),
        textcoords="offset points",
        ha="left",
        fontsize=8,
        color=MUTED,
    )


def finish(figure: Figure, caption: str = "", title: str = "") -> Figure:
    """Write the caption below a figure, and keep it as the figure's label (`save` stores it in the file)."""
    caption = caption.strip()
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    if caption:
        wrapped = textwrap.fill(caption, int(15.5 * figure.get_figwidth()))
        figure.supxlabel(wrapped, x=0.01, ha="left", fontsize=8, color=MUTED)
    figure.set_label(" ".join(part for part in (title, caption) if part))
    return figure
