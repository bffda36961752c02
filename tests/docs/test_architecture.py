"""docs/architecture.md is true: its references lead to what they name, and its tree is the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scripts.line_references import PAGE, REFERENCE, SOURCE, line_of, renewed

TEXT = PAGE.read_text()
NEAR = 20  # lines that a reference may be off
REFERENCES = [(file, int(line), name) for file, line, name in REFERENCE.findall(TEXT)]
WALKS = ("A training step, file by file", "An evaluation, file by file")


@pytest.mark.parametrize(("file", "line", "name"), REFERENCES)
def test_references_lead_to_what_they_name(file: str, line: int, name: str) -> None:
    assert abs(line_of(file, name) - line) <= NEAR, "run python scripts/line_references.py"


def test_a_reference_that_leads_nowhere_is_named() -> None:
    with pytest.raises(LookupError, match="loop.py defines no absent"):
        renewed("`training/loop.py:3` `absent`")


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_has_at_most_eight_files(walk: str) -> None:
    section = TEXT.split(f"## {walk}")[1].split("\n## ")[0]
    files = {file for file, _, _ in REFERENCE.findall(section)}
    assert 5 <= len(files) <= 8


def test_every_file_that_the_page_names_exists() -> None:
    for name in re.findall(r"`((?:[\w]+/)+[\w]+\.py)`", TEXT):
        assert any((root / name).exists() for root in (SOURCE, PAGE.parents[1])), name


def test_the_tree_and_the_floors_name_every_package() -> None:
    tree = set(re.findall(r"^  (\w+)(?:/|\.py) ", TEXT.split("src/sfumato/\n")[1].split("```")[0], re.M))
    floors = {package for row in re.findall(r"^\| \d \| (.*) \|$", TEXT, re.M) for package in row.split()}
    here = {p.stem for p in SOURCE.iterdir() if (p / "__init__.py").exists() or p.suffix == ".py"} | {"interop"}
    assert tree | {"__init__", "__main__"} == here
    assert floors | {"__init__"} == here
    assert Path(SOURCE / "interop").is_dir()
