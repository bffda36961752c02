"""The pages on the report and on flags name all that is there: every flag, every column and every folder."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from scripts.flags_table import PAGE, renewed

import sfumato
from sfumato.metrics.flags import FLAGS, flagged, meaning
from sfumato.report.page_parts import BELOW
from sfumato.report.results import COLUMNS

ROOT = Path(__file__).parents[2]
READING = (ROOT / "docs" / "how-to" / "read-a-report.md").read_text()


def test_every_flag_stands_on_its_page_with_its_meaning() -> None:
    text = PAGE.read_text()
    assert renewed(text) == text, "run python scripts/flags_table.py"
    for flag in FLAGS.values():
        assert flag.meaning in text and flag.meaning.endswith(".")


def test_every_flag_is_printed_somewhere_and_none_is_printed_that_is_not_there() -> None:
    used = set()
    for file in Path(sfumato.__file__).parent.rglob("*.py"):
        text = file.read_text()
        for node in ast.walk(ast.parse(text)) if "flagged(" in text else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "flagged":
                first = node.args[0]
                assert isinstance(first, ast.Constant), f"{file}: a flag is named by its key"
                used.add(first.value)
    assert used == set(FLAGS)


@pytest.mark.parametrize("name", FLAGS)
def test_a_printed_flag_finds_its_own_meaning(name: str) -> None:
    facts = dict.fromkeys(re.findall(r"{(\w+)}", FLAGS[name].words), 7)
    assert meaning(flagged(name, **facts)) == FLAGS[name].meaning


def test_a_flag_of_another_version_has_no_meaning() -> None:
    assert meaning("a flag of next year") == ""


def test_the_page_on_reports_names_every_column_of_scores() -> None:
    named = re.findall(r"^\| ([\w, /]+) \|", READING, re.MULTILINE)
    columns = {name for row in named for name in row.split(", ")} - {"column"}
    assert columns == {*COLUMNS} - {*BELOW.values()} - {"protocol", "images/s", "flags"}
