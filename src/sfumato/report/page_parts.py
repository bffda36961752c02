"""What the report page is made of: sections that hold tables, pictures and notes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from sfumato.metrics.flags import meaning
from sfumato.report.results import FLAGS_APART
from sfumato.report.table import Cell, Row, header, numeric, show

BELOW = {"run": "recipe", "score": "made", "split": "seen"}  # column of scores -> what stands below its value


@dataclass(frozen=True)
class Picture:
    """A picture on the page.

    Attributes:
        source: Its data URI.
        alt: What it shows.
        title: Its kind, in a word or two.
        words: What made it.
        command: What makes it again.
        link: Id of the protocol of its numbers.
        size: Width and height in CSS pixels.
        run: Whose it is; "" for a curve.
        kind: "curve" for one drawn for the page, "bare" for images without words, else "".
    """

    source: str
    alt: str
    title: str = ""
    words: str = ""
    command: str = ""
    link: str = ""
    size: tuple[int, int] = (0, 0)
    kind: str = ""
    run: str = ""

    @property
    def wide(self) -> bool:
        """Whether a narrow screen scrolls it rather than shrinking it."""
        return self.size[0] > 1.8 * self.size[1]


@dataclass(frozen=True)
class Shown:
    """A cell of a table: its text, what it is sorted by, a smaller text below, and the id of a protocol it leads to."""

    text: str
    key: str = ""
    small: str = ""
    link: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a table, and what is to be known of it: short lines, each with its explanation."""

    cells: list[Shown]
    notes: list[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A table on the page."""

    title: str
    names: list[str]
    right: list[bool]
    rows: list[Line]


@dataclass
class Section:
    """A section of the page; `missing` is the command that makes what no result has."""

    key: str
    title: str
    lead: str
    missing: str
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    folded: list[Picture] = field(default_factory=list)
    more: str = "more pictures"
    notes: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether nothing is known."""
        return not (self.tables or self.pictures or self.folded or self.notes)


def table_of(rows: Sequence[Row], title: str = "", *, headed: bool = False) -> Table:
    """Return rows as they are shown: a score leads to its protocol; what stands below another value has no column.

    Arguments:
        rows: Rows of scores (`results.COLUMNS`), or any others.
        title: Its heading.
        headed: Whether the heading names the score, so that its column is left out.
    """
    scored = any("score" in row for row in rows)
    hidden = {"protocol", "flags", "images/s", *BELOW.values(), *(["score"] if headed else [])} if scored else set()
    leads, told = "value" if headed else "score", set()
    names = [name for name in header(rows) if name not in hidden and any(row.get(name) is not None for row in rows)]
    lines = []
    for row in rows:
        cells = []
        for name in names:
            value, link = row.get(name), ""
            plain = value.value if isinstance(value, Cell) else value
            key = "" if plain is None or (isinstance(plain, float) and math.isnan(plain)) else str(plain)
            text, below = value.apart if isinstance(value, Cell) else (show(value), "")
            text += value.mark if isinstance(value, Cell) else ""
            if scored and name in BELOW:
                below = str(row.get(BELOW[name]) or "")
            if name == "protocol" or (scored and name == leads):
                link = str(row.get("protocol") or "")
            cells.append(Shown(text, key, below, link))
        notes = []
        for flag in filter(None, str(row.get("flags") or "").split(FLAGS_APART) if scored else []):
            explained = "" if meaning(flag) in told else meaning(flag)  # once in a table
            notes.append((flag.removeprefix("* ").rstrip("."), explained))
            told.add(explained)
        lines.append(Line(cells, notes))
    return Table(title, names, [numeric(rows, name) for name in names], lines)
