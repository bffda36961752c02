"""Every recipe for a CPU is one that training accepts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sfumato.cli.explain import _with_shape
from sfumato.core.find import entries
from sfumato.runs.check import check
from sfumato.runs.plan import plan

SHAPES = {"digits": (1, 8), "fashion-mnist": (1, 28), "cifar10": (3, 32), "cifar10-jpeg75": (3, 32)}  # channels, side
SMALL = [name for name, make in entries("recipe").items() if make().data.name in SHAPES]
OURS = [name for name in SMALL if name.startswith("course-") or "digits" in name or "-cpu" in name]


@pytest.mark.parametrize("name", OURS)
def test_it_is_accepted(name: str, request: pytest.FixtureRequest) -> None:
    recipe = entries("recipe")[name]()
    channels, side = SHAPES[recipe.data.name]
    side = recipe.data.pad or recipe.data.size or side
    if recipe.data.told_more and recipe.data.name != "digits":
        request.getfixturevalue("real_data")  # which says what the model is told
    shaped = _with_shape(recipe, None, None if recipe.data.told_more else f"{channels}x{side}x{side}", 10)
    assert shaped is not None
    check(plan(replace(shaped, sample=replace(shaped.sample, classifier=None))))
