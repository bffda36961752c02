"""The README says what is there."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
from tests.conftest import TINY

from sfumato.cli._design import measured
from sfumato.core.find import entries

README = Path(__file__).parents[1] / "README.md"
ROWS = re.findall(r"^\| [^|]+ \| `([a-z_/]+)` \| ([^|]+) \|$", README.read_text(), re.MULTILINE)


def test_the_table_of_rooms_is_there() -> None:
    assert len(ROWS) >= 10


@pytest.mark.parametrize(("room", "names"), ROWS, ids=[room for room, _ in ROWS])
def test_each_room_lists_exactly_its_entries(room: str, names: str) -> None:
    assert [n.strip() for n in names.split(",")] == list(entries(room.replace("/", ".")))


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        assert target.startswith("https://") or (README.parent / target).exists(), target


def test_the_ten_lines_of_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block as it stands, with a smaller model and fewer images."""
    (block,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert len([line for line in block.splitlines() if line]) == 10
    for before, after in (('"train.images=60_000"', "*TINY"), ("n=1000", "n=50")):
        assert before in block
        block = block.replace(before, after)
    monkeypatch.chdir(tmp_path)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(block, {"TINY": TINY})
    lines = said.getvalue().splitlines()
    (score,) = [line for line in lines if line.startswith("FD[digits]")]
    assert "floor" in score and "protocol" in score
    sigmas = [float(line.split()[0]) for line in lines[-3:]]
    assert sigmas == sorted(sigmas, reverse=True) and sigmas[-1] == 0
    for name in ("digits", "threes", "steps"):
        assert (tmp_path / f"{name}.png").stat().st_size > 500


def test_the_count_of_trained_recipes_is_that_of_their_docstrings() -> None:
    recipes = entries("recipe").values()
    trained = sum(measured(recipe) is not None for recipe in recipes)
    assert f"Trained here: {trained} of {len(recipes)};" in README.read_text()
