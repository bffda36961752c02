"""The README says what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
