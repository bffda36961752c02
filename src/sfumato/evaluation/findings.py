"""What can be asked of a run besides scores: tables with curves and pictures, each a file of `evaluation/tables/`.

Every function of that package returns a `Table` and is asked for by its name beside metrics:
`sfumato evaluate RUN --metrics fd per-class memorization`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sfumato.core.find import entries, find
from sfumato.evaluation.judge import Generated, Judge
from sfumato.metrics import metric
from sfumato.metrics.metric import Metric, find_metric

AXIS = "table"


@dataclass
class Findings:
    """What a table found; see `report.results` for the form of tables, curves and pictures."""

    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    panels: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a run's images.

    Attributes:
        measure: (judge, images) -> what was found.
        check: (judge, labels asked for) -> None; refuses, by ValueError, before any image is made.
        pixels: Whether it reads the images' pixels, besides their features.
    """

    measure: Callable[[Judge, Generated], Findings]
    check: Callable[[Judge, np.ndarray | None], None]
    pixels: bool = False


def tables() -> list[str]:
    """Return the names of all tables."""
    return list(entries(AXIS))


def expand(names: Sequence[str]) -> list[str]:
    """Return the names of single metrics and tables, each once.

    Raises:
        ValueError: For an unknown name; the nearest is offered.
    """
    return metric.expand(names, tables())


def find_asked(name: str) -> Metric | Table:
    """Return a metric or a table by name.

    Raises:
        ValueError: For an unknown name.
    """
    return find(AXIS, name)() if name.replace("_", "-") in tables() else find_metric(name)


def series_of(x: Sequence[float], values: Sequence[Any]) -> dict[str, list[float]]:
    """Return scores or estimates at x as a line of a curve, with their intervals."""
    low, high = zip(*(value.interval for value in values))
    return {"x": list(x), "y": [value.value for value in values], "low": list(low), "high": list(high)}


def cell(value: Any) -> dict[str, Any]:
    """Return a score or an estimate as a value of a table."""
    return {"value": value.value, "interval": list(value.interval)}
