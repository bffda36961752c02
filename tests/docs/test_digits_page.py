"""The table of docs/results/digits.md is written from result files."""

from __future__ import annotations

import json
import re
from pathlib import Path

from scripts.digits_page import PAGE, PROTOCOL, renewed

TEXT = PAGE.read_text()


def test_rows_are_written_from_results_and_others_stay(tmp_path: Path) -> None:
    """A page written from results that hold its own numbers is the page."""
    fd, kid = (protocol for protocol, _ in PROTOCOL.findall(TEXT))
    number = r"(-?[\d.]+)"
    cell = rf"{number} \[{number}, {number}\]"
    rows = re.findall(rf"^\| `([\w-]+)`.*? \| (\d+) \| {cell} \| {cell} \| {number} \|$", TEXT, re.MULTILINE)
    assert len(rows) == 19
    for name, nfe, *numbers, minutes in rows:
        scores = [
            {"name": f"{metric}[digits]", "value": v, "interval": [low, high], "protocol": {"protocol_id": key}}
            for metric, key, (v, low, high) in zip(
                ("FD", "KID"), (fd, kid), (map(float, numbers[:3]), map(float, numbers[3:]))
            )
        ]
        facts = {"nfe": int(nfe), "training_seconds": 60 * float(minutes)}
        file = tmp_path / name / "results" / "digits-test-n1000-0.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"scores": scores, "provenance": facts}))
    assert renewed(TEXT, tmp_path) == TEXT
    file = tmp_path / "edm-digits" / "results" / "digits-test-n1000-0.json"
    file.write_text(file.read_text().replace('"nfe": 35', '"nfe": 36'))
    changed = renewed(TEXT, tmp_path)
    assert [a for a, b in zip(TEXT.splitlines(), changed.splitlines()) if a != b] == [
        line for line in TEXT.splitlines() if line.startswith("| `edm-digits`")
    ]
    other = json.loads(file.read_text())
    other["scores"][0]["protocol"]["protocol_id"] = "0" * 16  # of another protocol: no row of this page
    file.write_text(json.dumps(other))
    assert renewed(TEXT, tmp_path) == TEXT and renewed(TEXT, tmp_path / "none") == TEXT
