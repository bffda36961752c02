"""The trainings that docs/how-to/fine-tune-a-model.md names are recipes that pass every check."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from sfumato.runs.check import check
from sfumato.runs.override import override, recipe_named
from sfumato.runs.plan import plan
from sfumato.runs.resolve import load_data, resolve

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "fine-tune-a-model.md"


def test_every_training_of_the_page_is_a_recipe_that_passes_every_check() -> None:
    commands = re.findall(r"^sfumato train (.*)$", PAGE.read_text(), flags=re.MULTILINE)
    assert len(commands) == 3
    for name, *rest in map(shlex.split, commands):
        recipe = override(recipe_named(name), [word for word in rest if "=" in word])
        check(plan(resolve(recipe, load_data(recipe, "train"))))
