"""Records that a run writes line by line: metrics.jsonl and scores.jsonl.

A line that is damaged costs that line and nothing else; it is said. A last line without its end is one that a process
was writing when it was killed, or is writing now.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfumato.core.reading import BYTES, FileRefusedError, parse_json, read_bytes
from sfumato.core.writing import naming, replace_text

MEASURED = ("loss", "grad_norm", "lr", "skipped")  # numbers where a record has them, or null


def read_records(path: Path | str, needs: tuple[str, ...] = ("images",)) -> list[dict[str, Any]]:
    """Read the whole records of a file, in order; none if there is no file.

    Arguments:
        path: The file, a JSON object a line.
        needs: Names of numbers without which a record is damaged.
    """
    path = Path(path)
    lines = read_bytes(path, 4 * BYTES).splitlines(keepends=True) if path.exists() else []
    records = {i: _record(line, needs) for i, line in enumerate(lines, 1) if line.endswith(b"\n")}
    damaged = [str(i) for i, record in records.items() if record is None]
    if damaged:
        warnings.warn(f"{path} is damaged in line {', '.join(damaged[:8])}: left out.", stacklevel=2)
    return [record for record in records.values() if record is not None]


def trim_records(path: Path, step: int, needs: tuple[str, ...] = ("step",)) -> list[dict[str, Any]]:
    """Drop records of steps that a crash lost, so that the file is the one of an uninterrupted run; return the others.

    Arguments:
        path: The file; changed only if something is dropped, and then as a whole.
        step: Last step to keep.
        needs: As for `read_records`.
    """
    kept = [record for record in read_records(path, needs) if record["step"] <= step]
    text = "".join(json.dumps(record) + "\n" for record in kept)
    if path.exists() and path.read_bytes() != text.encode():
        replace_text(path, text)
    return kept


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as the last line of a file; a line that a killed process left without its end costs itself only.

    Arguments:
        path: The file; made if missing.
        record: JSON.
    """
    with naming(path), open(path, "a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
        torn = file.read(1) not in (b"", b"\n")
        file.write(("\n" * torn + json.dumps(record) + "\n").encode())


def _record(line: bytes, needs: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the record in a line; None if it is damaged."""
    try:
        record: dict[str, Any] = parse_json(line, "The line", finite=False)
    except FileRefusedError:
        return None
    good = all(isinstance(record.get(name), int | float) for name in needs)
    good = good and all(isinstance(record.get(name, 0), int | float | None) for name in MEASURED)
    return record if good else None
