"""The law of the house: imports point down the floors, and rooms of the first floor never import each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sfumato

ROOT = Path(sfumato.__file__).parent
FLOORS = {
    room: floor
    for floor, rooms in enumerate(
        (
            "core download",
            "schedules grids draws weightings conditioning networks samplers guidance tasks methods likelihood "
            "data metrics",
            "objectives sources restoration editing",
            "processes",
            "runs",
            "evaluation",
            "training",
            "recipes experiments interop report pictures codelength app",
            "studies",
            "model api cli __main__",
        )
    )
    for room in rooms.split()
}


def room_of(module: str) -> str | None:
    """The room of a dotted module name inside sfumato."""
    parts = module.split(".")
    return parts[1] if parts[0] == "sfumato" and len(parts) > 1 else None


def imports(file: Path) -> list[tuple[int, str]]:
    """(line, dotted module) of every import of sfumato in a file, relative ones resolved."""
    package = ["sfumato", *file.relative_to(ROOT).with_suffix("").parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" if module == "sfumato" else module for alias in node.names]
            found += [(node.lineno, name) for name in names]
    return found


FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(file):
    own = file.relative_to(ROOT).with_suffix("").parts[0]
    assert own in FLOORS, f"{own} has no floor: add it to FLOORS and to docs/architecture.md"
    for line, module in imports(file):
        room = room_of(module)
        if room is None or room == own or room.startswith("__"):
            continue
        assert room in FLOORS, f"{file.name}:{line} imports {module}, which is in no room"
        up, level = FLOORS[room] > FLOORS[own], FLOORS[room] == FLOORS[own] == 1
        assert not up, f"{file.relative_to(ROOT)}:{line} imports {module}, a higher floor"
        assert not level, f"{file.relative_to(ROOT)}:{line} imports {module}: rooms of the first floor meet in core"
