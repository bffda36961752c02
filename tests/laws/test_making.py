"""How images are made has one author: no other module writes a recipe's sampler or grid into a text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sfumato

ROOT = Path(sfumato.__file__).parent
AUTHOR = "runs/making.py"
PARTS = {"sampler", "grid"}
MESSAGES = {
    "runs/check.py",
    "runs/check_guidance.py",
    "runs/plan.py",
}  # refuse a sampler that does not fit, by the fields a person sets


def of_sample(node: ast.AST, samples: set[str]) -> bool:
    """Whether a node is the `sample` of a recipe, or a name given to it."""
    return (isinstance(node, ast.Attribute) and node.attr == "sample") or (
        isinstance(node, ast.Name) and node.id in samples
    )


def parts_in(node: ast.AST, samples: set[str], parts: set[str]) -> Iterator[int]:
    """Lines at which a sampler or grid of a recipe, or a name given to one, is read, but for its name alone."""
    named = {id(n.value) for n in ast.walk(node) if isinstance(n, ast.Attribute) and n.attr == "name"}
    for inner in (n for n in ast.walk(node) if id(n) not in named):
        read = isinstance(inner, ast.Attribute) and inner.attr in PARTS and of_sample(inner.value, samples)
        if read or (isinstance(inner, ast.Name) and inner.id in parts):
            yield inner.lineno


def texts(tree: ast.AST) -> Iterator[ast.AST]:
    """Every value that becomes a text: in an f-string, under str(), repr() or format()."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FormattedValue):
            yield node.value
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if called in ("str", "repr", "format"):
                yield from node.args


def authors(source: str) -> list[int]:
    """Lines of a file at which a sampler or a grid of a recipe becomes a text."""
    found: set[int] = set()
    tree = ast.parse(source)
    scopes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for scope in scopes or [tree]:
        pairs = []
        for node in ast.walk(scope):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    several = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
                    pairs += zip(target.elts, node.value.elts) if several else [(target, node.value)]
        samples = {t.id for t, v in pairs if isinstance(t, ast.Name) and of_sample(v, set())}
        parts = {
            t.id
            for t, v in pairs
            if isinstance(t, ast.Name)
            and isinstance(v, ast.Attribute)
            and v.attr in PARTS
            and of_sample(v.value, samples)
        }
        for text in texts(scope):
            found.update(parts_in(text, samples, parts))
    return sorted(found)


FILES = {str(p.relative_to(ROOT)): p for p in sorted(ROOT.rglob("*.py"))}


@pytest.mark.parametrize("name", sorted({*FILES} - {AUTHOR, *MESSAGES}))
def test_only_one_module_says_how_images_are_made(name: str) -> None:
    lines = authors(FILES[name].read_text())
    assert not lines, f"{name}:{lines[0]} writes a recipe's sampler or grid into a text; ask Run.making()"


@pytest.mark.parametrize(
    "line",
    [
        'return f"{run.recipe.sample.sampler} on it"',
        "return str(recipe.sample.grid)",
        'settings = run.recipe.sample\n    return f"{settings.sampler.name}-{settings.grid}"',
        'grid = run.recipe.sample.grid\n    return f"on {grid}"',
        'a, b = recipe.sample.sampler, 3\n    return "{}".format(a)',
    ],
)
def test_another_author_is_found(line: str) -> None:
    assert authors(f"def caption(run, recipe):\n    {line}\n")


def test_the_author_is_the_author() -> None:
    assert authors(FILES[AUTHOR].read_text())
