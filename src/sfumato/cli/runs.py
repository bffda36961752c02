"""``sfumato runs``: the runs on disk."""

from __future__ import annotations

import errno
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from sfumato.report.table import Value

DEFAULT = "runs"


def runs(folder: Annotated[Positional[str], arg(metavar="[DIR]")] = DEFAULT) -> int:
    """List the runs below a folder: recipe, images seen, loss, last score, age.

    Arguments:
        folder: Folder below which runs are sought, at any depth.
    """
    from sfumato.report.table import text_table

    if folder != DEFAULT and not Path(folder).is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "There is no such folder", folder)
    rows = [row(path.parent) for path in sorted(Path(folder).rglob("recipe.json"))]
    print(text_table(rows) if rows else f"No runs below {folder}. `sfumato train RECIPE` makes one.")
    return 0


def row(run: Path) -> dict[str, Value]:
    """Return what is known of a run, from its small files alone.

    Arguments:
        run: Its directory.
    """
    recipe = _tree(_read(run / "recipe.json").get("recipe"))
    record = _last_record(run / "metrics.jsonl")
    train = _tree(recipe.get("train"))
    minutes, images = train.get("minutes"), train.get("images")
    budget = f"{images:,}" if isinstance(images, int) else "?"
    return {
        "run": str(run),
        "recipe": str(recipe.get("name", "(unreadable)")),
        "images": record.get("images"),
        "of": f"{minutes:g} min" if isinstance(minutes, int | float) else budget,
        "loss": record.get("loss"),
        "score": _last_score(run / "results"),
        "age": age(time.time() - _changed(run)),
    }


def age(seconds: float) -> str:
    """Write a duration shortly.

    >>> age(5), age(600), age(7300), age(400_000)
    ('5 s', '10 min', '2 h', '4 days')
    """
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _changed(run: Path) -> float:
    watched = [run / "recipe.json", run / "metrics.jsonl", *run.glob("results/*.json")]
    return max(file.stat().st_mtime for file in watched if file.exists())


def _last_record(file: Path) -> dict[str, Any]:
    from sfumato.core.reading import read_lines

    try:
        return deque(read_lines(file, whole=False), maxlen=1).pop()
    except (IndexError, ValueError, OSError):
        return {}


def _last_score(folder: Path) -> str | None:
    """Return the first score, with its interval, of the newest result that has one, as text."""
    from sfumato.report.table import Cell

    for file in sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True):
        scores = _read(file).get("scores")
        first = _tree(scores[0]) if isinstance(scores, list) and scores else {}
        value, interval = first.get("value"), first.get("interval")
        if isinstance(value, int | float):
            known = isinstance(interval, list) and [type(end) for end in interval] == [float, float]
            return f"{first.get('name', '?')} {Cell(value, tuple(interval) if interval and known else None)}"
    return None


def _read(file: Path) -> dict[str, Any]:
    from sfumato.core.reading import read_json

    try:
        return _tree(read_json(file, finite=False))
    except (ValueError, OSError):
        return {}


def _tree(value: Any) -> dict[str, Any]:
    """Return a JSON object; anything else stands where a damaged or foreign file has none."""
    return value if isinstance(value, dict) else {}
