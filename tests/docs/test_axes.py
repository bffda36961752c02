"""The table of axes, README, CONTRIBUTING and `sfumato list` know the same axes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sfumato.cli import main
from sfumato.core.axes import AXES, axis_named
from sfumato.core.find import entries

ROOT = Path(__file__).parents[2]
CONTRIBUTING = dict(re.findall(r"^\| (\w+) \| ([^|]+) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
README = re.findall(r"^\| [^|]+ \| `([a-z_/]+)` \| [^|]+ \|$", (ROOT / "README.md").read_text(), re.MULTILINE)


def test_contributing_has_a_row_for_every_axis() -> None:
    assert [name for name in CONTRIBUTING if name != "axis"] == list(AXES)


@pytest.mark.parametrize("axis", AXES)
def test_contributing_says_where_a_part_goes(axis: str) -> None:
    assert f"`{AXES[axis].where}`" in CONTRIBUTING[axis]
    assert entries(axis)


def test_the_readme_shows_axes_only() -> None:
    assert len({axis_named(row.replace("/", ".")) for row in README}) == len(README) >= 10


def test_list_names_every_axis_and_so_does_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert re.findall(r"^(\w+): ", capsys.readouterr().out, re.MULTILINE) == list(AXES)
    main(["list", "--help"])
    explained = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    *most, last = AXES
    assert f"{', '.join(most)} or {last}" in explained


@pytest.mark.parametrize(("word", "axis"), [("samplers", "sampler"), ("core.target", "target"), ("studies", "study")])
def test_an_axis_is_found_by_plural_and_module_too(word: str, axis: str) -> None:
    assert axis_named(word) == axis
