"""docs/design-space.md says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sfumato.cli.plot import draw
from sfumato.core.find import entries
from sfumato.report.table import markdown_table

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "design-space.md").read_text()


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (DOCS / target).exists(), target


@pytest.mark.parametrize("room", ["schedules", "draws"])
def test_the_page_holds_the_numbers_that_plot_prints(room: str) -> None:
    _, rows = draw(room)
    assert markdown_table(rows) in PAGE


def test_the_table_names_no_recipe_that_is_gone() -> None:
    """`make design-space` writes it."""
    names = re.findall(r"^\| ([a-z0-9-]+) \| ", (DOCS / "recipes.md").read_text(), re.MULTILINE)
    assert len(names) > 80 and set(names) - {"recipe"} <= set(entries("recipe"))
