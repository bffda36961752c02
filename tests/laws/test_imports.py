"""The laws of the tree: imports point down the floors, and nothing runs in a circle.

Every import counts: those at the head of a file, those inside functions, and those for type checkers only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import sfumato

ROOT = Path(sfumato.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
FLOORS = {  # package -> floor, of the page's table
    package: int(floor)
    for floor, packages in re.findall(r"^\| (\d) \| (.*) \|$", PAGE.read_text(), re.M)
    for package in packages.split()
}


def module_of(file: Path) -> str:
    """Return the dotted name of a source file; that of a package for its `__init__.py`."""
    return ".".join(("sfumato", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


FILES = {module_of(file): file for file in sorted(ROOT.rglob("*.py"))}


@cache
def imports(module: str) -> list[tuple[int, str]]:
    """Return (line, dotted module of sfumato) of every import in a source file, relative ones resolved."""
    return list(_imports(module))


def _imports(module: str) -> Iterator[tuple[int, str]]:
    file = FILES[module]
    package = module.split(".")[: None if file.name == "__init__.py" else -1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            found = [inner if (inner := f"{source}.{alias.name}") in FILES else source for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in found if name.split(".")[0] == "sfumato" and name != module)


def package_of(module: str) -> str:
    """Return the package (or the single file) right below sfumato that a module belongs to; "" for sfumato itself."""
    return module.partition(".")[2].partition(".")[0]


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach one another, each sorted: the strongly connected components above one.

    >>> circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    [['a', 'b', 'c']]
    """

    def reached(start: str) -> set[str]:
        seen, open_ = set(), list(graph[start])
        while open_:
            node = open_.pop()
            if node not in seen:
                seen.add(node)
                open_ += graph.get(node, ())
        return seen

    reach = {node: reached(node) for node in graph}
    groups = {frozenset(other for other in reach[node] if node in reach.get(other, ())) for node in graph}
    return sorted(sorted(group) for group in groups if len(group) > 1)


@pytest.mark.parametrize("module", [m for m in FILES if m != "sfumato"])
def test_imports_point_down(module):
    own = package_of(module)
    assert own in FLOORS, f"{own} has no floor: add it to the table of docs/architecture.md"
    for line, other in imports(module):
        package = package_of(other)
        if package in ("", own):
            continue
        assert package in FLOORS, f"{module}:{line} imports {other}, which is in no package"
        up, level = FLOORS[package] > FLOORS[own], FLOORS[package] == FLOORS[own] == 1
        assert not up, f"{module}:{line} imports {other}, a higher floor"
        assert not level, f"{module}:{line} imports {other}: packages of the first floor meet in core"


def test_no_files_import_each_other_in_a_circle():
    graph = {module: {other for _, other in imports(module)} for module in FILES}
    found = circles(graph)
    assert not found, "; ".join(" <-> ".join(group) for group in found)


def test_no_packages_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {package_of(module): set() for module in FILES}
    for module in FILES:
        graph[package_of(module)] |= {package_of(other) for _, other in imports(module)} - {package_of(module)}
    found = circles(graph)
    assert not found, "; ".join(" <-> ".join(name or "sfumato" for name in group) for group in found)


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        ({"a": {"b"}, "b": {"a"}}, [["a", "b"]]),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, [["a", "b", "c"]]),
        ({"a": {"b", "c"}, "b": {"c"}, "c": set()}, []),
    ],
)
def test_circles_are_found(graph, found):
    assert circles(graph) == found
