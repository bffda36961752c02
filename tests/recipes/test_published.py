"""A recipe's docstring quotes the published scores of docs/results/published.md and no other number."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from sfumato.core.find import entries
from sfumato.recipes.course_ddpm import course_ddpm_cats_cosine, course_ddpm_cats_frogs

TABLE = (Path(__file__).parents[2] / "docs" / "results" / "published.md").read_text()
ROWS = {row[0]: row[1:] for row in re.findall(r"^\| ([a-z0-9-]+) \| (.+?) \| (.+?) \| .+ \|$", TABLE, re.MULTILINE)}
del ROWS["recipe"]  # the head
RECIPES = entries("recipe")


def decimals(text: str) -> set[float]:
    """Return the numbers of a text that are written with a decimal point."""
    return {float(number) for number in re.findall(r"\d+\.\d+", text)}


def expected(name: str) -> str:
    """Return what a docstring says under "Expected"; "" if it says nothing."""
    doc = inspect.getdoc(RECIPES[name]) or ""
    found = re.search(r"^Expected: (.*(?:\n    .*)*)", doc, re.MULTILINE)
    return found[1] if found else ""


@pytest.mark.parametrize("name", RECIPES)
def test_a_docstring_quotes_the_published_scores_and_no_other(name: str) -> None:
    scores, settings = ROWS.get(name, ("", ""))
    quoted = decimals(expected(name))
    assert quoted - decimals(settings) == decimals(scores) - decimals(settings), name
    assert decimals(settings) <= quoted, "a setting that the docstring does not name"


def test_every_row_is_a_recipe_and_every_quoted_score_has_a_row() -> None:
    assert set(ROWS) <= set(RECIPES) and len(ROWS) > 50
    assert all(name in ROWS for name in RECIPES if re.search(r"\bFID [\d.]", expected(name)))


def test_the_scores_of_two_classes_belong_to_the_cosine_chain() -> None:
    """The report's model of cats and frogs has the cosine chain, whose scores these are."""
    assert course_ddpm_cats_frogs().schedule == course_ddpm_cats_cosine().schedule
    assert course_ddpm_cats_frogs().schedule.options["clip"] == 0.02
