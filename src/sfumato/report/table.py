"""Tables of numbers that carry their uncertainty: one list of rows, three ways to write it.

A row is a mapping from column name to a value: a text, an integer, a float, None for "not measured", or a `Cell`, a
number with its 95% interval. A cell is written with as many decimals as its interval justifies (two digits of the
interval's width), ``1.23 [1.10, 1.36]``; CSV keeps every digit in three columns, ``FD, FD low, FD high``.

    text_table(rows)        aligned, plain ASCII, for terminals
    markdown_table(rows)    for documents
    csv_table(rows)         for other programs
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """A number with the interval it lies in.

    Attributes:
        value: The estimated number.
        interval: Where its limit lies with 95% confidence; None if unknown.
        mark: Follows the number, for example "*" for a score on data the model may have trained on.

    >>> str(Cell(1.2345, (1.1021, 1.3621))), str(Cell(0.0123)), str(Cell(3.0, (3.0, 3.0), "*"))
    ('1.23 [1.10, 1.36]', '0.0123', '3 [3, 3]*')
    """

    value: float
    interval: tuple[float, float] | None = None
    mark: str = ""

    @property
    def apart(self) -> tuple[str, str]:
        """The number and its interval, each as text; the interval is "" if it is unknown."""
        if self.interval is None:
            return number(self.value), ""
        low, high = self.interval
        width = high - low
        if not (math.isfinite(width) and width > 0):
            return number(self.value), f"[{number(low)}, {number(high)}]"
        decimals = max(0, 1 - math.floor(math.log10(width)))
        largest = max(abs(low), abs(high))
        form = f",.{decimals}f"
        if largest < 1e-3:
            form = f".{max(0, math.floor(math.log10(largest)) + decimals)}e"
        return f"{self.value:{form}}", f"[{low:{form}}, {high:{form}}]"

    def __str__(self) -> str:
        return " ".join(filter(None, self.apart)) + self.mark


Value = Cell | str | int | float | None
Row = Mapping[str, Value]


def number(value: int | float) -> str:
    """Write a number without an interval: integers whole, others with four significant digits.

    >>> [number(v) for v in (60000, 0.25, 1234.56, 0.000012345, float("nan"))]
    ['60,000', '0.25', '1,235', '1.234e-05', 'nan']
    """
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def show(value: Value) -> str:
    """Write any value of a table; None is a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) else str(value)


def header(rows: Sequence[Row]) -> list[str]:
    """Return the columns of all rows, in order of first appearance.

    >>> header([{"model": "a", "FD": 1.0}, {"model": "b", "KID": 2.0}])
    ['model', 'FD', 'KID']
    """
    return list(dict.fromkeys(name for row in rows for name in row))


def numeric(rows: Sequence[Row], name: str) -> bool:
    """Return whether a column holds numbers only, so that it is aligned at the right."""
    values = [row[name] for row in rows if row.get(name) is not None]
    return bool(values) and not any(isinstance(v, str | bool) for v in values)


def text_table(rows: Sequence[Row]) -> str:
    """Write rows for a terminal: columns aligned, numbers at the right, ASCII only if the values are.

    Arguments:
        rows: Mappings from column to value; columns may differ between rows.

    Returns:
        Lines without a final newline; an empty text for no rows.

    >>> print(text_table([{"model": "edm", "FD": Cell(1.234, (1.1, 1.36)), "n": 1000}, {"model": "floor", "FD": 0.5}]))
    model                 FD      n
    -----  -----------------  -----
    edm    1.23 [1.10, 1.36]  1,000
    floor                0.5      -
    """
    names = header(rows)
    cells = [[show(row.get(name)) for name in names] for row in rows]
    widths = [max(len(line[i]) for line in [names, *cells]) for i in range(len(names))]
    right = [numeric(rows, name) for name in names]

    def line(texts: Sequence[str]) -> str:
        padded = (t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(names), line(["-" * w for w in widths]), *map(line, cells)]) if rows else ""


def markdown_table(rows: Sequence[Row]) -> str:
    """Write rows as a Markdown table, numbers aligned at the right.

    >>> print(markdown_table([{"sampler": "heun", "NFE": 35}]))
    | sampler | NFE |
    | :-- | --: |
    | heun | 35 |
    """
    names = header(rows)
    if not rows:
        return ""

    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(t.replace("|", "\\|").replace("\n", " ") for t in texts) + " |"

    marks = ["--:" if numeric(rows, name) else ":--" for name in names]
    return "\n".join([line(names), line(marks), *(line([show(row.get(name)) for name in names]) for row in rows)])


def csv_table(rows: Sequence[Row]) -> str:
    """Write rows as CSV with every digit; a cell with an interval fills three columns.

    >>> print(csv_table([{"model": "edm", "FD": Cell(1.5, (1.25, 1.75))}]), end="")
    model,FD,FD low,FD high
    edm,1.5,1.25,1.75
    """
    names = header(rows)
    with_interval = {n for n in names if any(isinstance(v := row.get(n), Cell) and v.interval for row in rows)}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if rows:
        writer.writerow([c for n in names for c in ((n, f"{n} low", f"{n} high") if n in with_interval else (n,))])
    for row in rows:
        line: list[object] = []
        for name in names:
            value = row.get(name)
            plain = value.value if isinstance(value, Cell) else value
            line.append("" if plain is None else plain)
            if name in with_interval:
                line += value.interval if isinstance(value, Cell) and value.interval else ("", "")
        writer.writerow(line)
    return out.getvalue()
