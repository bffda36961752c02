"""The tables of docs/results/digits.md are written from result files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from scripts.digits_page import PAGE, PROTOCOL, renewed

from sfumato.metrics.protocol import EvalProtocol, Reference
from sfumato.metrics.score import Score
from sfumato.metrics.spread import spread

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
        line for line in TEXT.splitlines() if line.startswith("| `edm-digits` | 35")
    ]
    other = json.loads(file.read_text())
    other["scores"][0]["protocol"]["protocol_id"] = "0" * 16  # of another protocol: no row of this page
    file.write_text(json.dumps(other))
    assert renewed(TEXT, tmp_path) == TEXT and renewed(TEXT, tmp_path / "none") == TEXT


def test_a_recipe_with_several_seeds_has_a_row_over_them(tmp_path: Path) -> None:
    """Mean, interval over seeds and images (`metrics.spread`, which has laws of its own), and range."""
    reference = Reference("digits", "0" * 64, "test", "all", "1" * 64, 360)
    protocols = {
        name: EvalProtocol(name, 1, "digits", "2" * 64, {}, reference, 1000, "uniform", "unbiased")
        for name in ("FD", "KID")
    }
    trainings = {"edm-digits": 1.0, "edm-digits-seed1": 1.5, "edm-digits-seed2": 1.7, "v-digits": 1.0}
    for name, value in trainings.items():
        scores = [
            Score(f"{metric}[digits]", value, (value - 0.2, value + 0.2), 0.1, value, 1000, 360, protocol).to_json()
            for metric, protocol in protocols.items()
        ]
        file = tmp_path / name / "results" / "a.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"scores": scores, "provenance": {"nfe": 35, "training_seconds": 60}}))
    ids = ", ".join(f"{protocol.protocol_id} ({name})" for name, protocol in protocols.items())
    rows = "".join(f"| `{name}` | 35 | x | x | 0.7 |\n" for name in ("edm-digits", "v-digits"))
    text = f"Protocols {ids}.\n\n{rows}\n| recipe | training seeds | FD |\n| - | - | - |\n| old | 2 | 3 |\n\nThe end.\n"
    found = spread([1.0, 1.5, 1.7], [0.1] * 3)
    low, high = found.interval
    page = renewed(text, tmp_path)
    assert f"| `edm-digits` | 3 | 1.40 [{low:.2f}, {high:.2f}] | 1.00 to 1.70 | 1.400 [" in page
    assert page.count("`v-digits`") == 1 and "old" not in page and page.endswith("\n\nThe end.\n")
    shutil.rmtree(tmp_path / "edm-digits-seed1")
    shutil.rmtree(tmp_path / "edm-digits-seed2")
    assert "| old | 2 | 3 |" in renewed(text, tmp_path)
