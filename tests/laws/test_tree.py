"""The laws of the tree's size: no package outgrows a screen, and nothing public stands unused."""

from __future__ import annotations

import ast
import importlib
import re
from collections import Counter
from pathlib import Path

import sfumato
from sfumato.core.axes import AXES

ROOT = Path(sfumato.__file__).parent
REPOSITORY = Path(__file__).parents[2]
MOST = (
    20  # files of a package's own level beside __init__, not counting those that are one part, command or picture each
)
# For use from Python, and so used by tests alone:
LIBRARY = {
    "core/exact.py": "exact denoisers, for whoever tries a sampler",
    "core/gauge.py": "gauges of one's own",
    "likelihood/codec/rate.py": "grids of equal rate, for whoever codes",
    "metrics/kid.py": "the plain statistic of given features",
    "metrics/prdc.py": "what coverage is expected of equal distributions",
}


def is_part(file: Path) -> bool:
    """Return whether a file holds one entry: a public function of the file's own name."""
    return re.search(rf"^def {file.stem}\b", file.read_text(), re.M) is not None


def test_no_package_outgrows_a_screen():
    helpers = Counter(
        str(file.parent.relative_to(ROOT))
        for file in ROOT.rglob("*.py")
        if not (is_part(file) or file.stem == "__init__")
    )
    assert {package: count for package, count in helpers.items() if count > MOST} == {}


def words_of(node: ast.AST) -> set[str]:
    """Return every name that a piece of code uses, in text as well, since parts are found by name."""
    found = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            found.add(inner.id)
        elif isinstance(inner, ast.Attribute):
            found.add(inner.attr)
        elif isinstance(inner, ast.alias):
            found.add(inner.name.split(".")[-1])
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str) and len(inner.value) < 60:
            found |= set(re.findall(r"[A-Za-z_]\w*", inner.value))
    return found


def parts_of(module: str) -> bool:
    """Return whether every public function of a module is a part, found by its name."""
    for axis in AXES.values():
        home = importlib.import_module(f"sfumato.{axis.module}")
        place = axis.module.replace(".", "/")
        if module == place or (module.startswith(f"{place}/") and getattr(home, "SEVERAL_PER_FILE", False)):
            return True
    return False


def unused() -> list[str]:
    """Return the public functions and classes that no other piece of code names."""
    defined, used = [], set()
    for folder in (ROOT, REPOSITORY / "examples", REPOSITORY / "benchmarks"):
        for file in sorted(folder.rglob("*.py")):
            for node in ast.parse(file.read_text()).body:
                name = node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else ""
                used |= words_of(node) - {name}
                if folder == ROOT and name and not name.startswith("_"):
                    defined.append((file.relative_to(ROOT), name))
    return [
        f"{file}: {name}"
        for file, name in defined
        if name not in used
        and file.stem != name  # a part in a file of its own
        and str(file) not in LIBRARY
        and not parts_of(str(file.with_suffix("")))
    ]


def test_nothing_public_is_unused():
    assert unused() == [], "delete it, give it a leading underscore, or say in LIBRARY for whom it stands here"
