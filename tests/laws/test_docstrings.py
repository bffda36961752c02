"""Every public function and class is documented in one form, and each line on an argument says something."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src/sfumato"
# packages and modules still to be rewritten in this form
NOT_YET = {
    "app",
    "cli",
    "draws.py",
    "evaluation",
    "grids.py",
    "metrics",
    "model.py",
    "pictures",
    "report",
    "runs",
    "samplers",
    "schedules.py",
}
# methods that say nothing beyond what their class says already
CALLED = {"forward"}
# what a line on an argument may not consist of: a bare genitive, or a question that stops at its verb
FRAGMENT = re.compile(r"^Of\b|^Whether .* (is|are|was|were|has|have|does|do|can|may)\.?$", re.DOTALL)
SECTION = re.compile(r"^(Arguments|Attributes|Returns|Yields|Raises|References|Example|Examples|Note|Notes):$")
ENTRY = re.compile(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*): *(.*)$")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public(body: list[ast.stmt], inside: str = "") -> Iterator[tuple[str, Definition]]:
    """Yield every public function, class and method of a module's body with its dotted name."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_") and not overloaded(node):
            yield f"{inside}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{inside}{node.name}.")


def parameters(node: Definition) -> set[str]:
    """Return the names that a caller passes: parameters of a function, fields and __init__'s parameters of a class."""
    if isinstance(node, ast.ClassDef):
        makers = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        assigned = [part.target for part in node.body if isinstance(part, ast.AnnAssign)]
        fields = {target.id for target in assigned if isinstance(target, ast.Name)}
        return fields.union(*(parameters(maker) for maker in makers))
    signature = node.args
    listed = [*signature.posonlyargs, *signature.args, *signature.kwonlyargs, signature.vararg, signature.kwarg]
    return {argument.arg for argument in listed if argument} - {"self", "cls"}


def documented(docstring: str) -> dict[str, str]:
    """Return what a docstring says of each argument or attribute, by name."""
    found: dict[str, str] = {}
    within, names = False, []
    for line in docstring.splitlines():
        heading = SECTION.match(line)
        if heading or (line and not line.startswith(" ")):
            within, names = bool(heading) and heading[1] in ("Arguments", "Attributes"), []
        elif within and line.startswith("  ") and not line.startswith("     "):
            entry = ENTRY.match(line.strip())
            names = entry[1].replace("*", "").split(", ") if entry else [f"(no name) {line.strip()}"]
            found |= dict.fromkeys(names, entry[2] if entry else "")
        elif within:
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return found


def overloaded(node: Definition) -> bool:
    """Return whether a definition is one of the signatures of an overloaded function."""
    return any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in node.decorator_list)


def faults(where: str, node: Definition) -> Iterator[str]:
    """Yield what is wrong with the docstring of one definition."""
    docstring = ast.get_docstring(node) or ""
    if not docstring and where.rpartition(".")[2] not in CALLED:
        yield f"{where}: has no docstring."
    said = documented(docstring)
    for name, words in said.items():
        if not isinstance(node, ast.ClassDef) and name not in parameters(node):
            yield f"{where}: {name} is no parameter."
        if len(words.split()) < 3 or FRAGMENT.match(words):
            yield f"{where}: {name}: {words!r} does not say what {name} is."
    missing = parameters(node) - set(said)
    if said and missing and not isinstance(node, ast.ClassDef):
        yield f"{where}: says nothing of {sorted(missing)}."


FILES = [file for file in sorted(SOURCE.rglob("*.py")) if file.relative_to(SOURCE).parts[0] not in NOT_YET]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_every_argument_is_said_to_be_something(file: Path):
    found = [fault for where, node in public(ast.parse(file.read_text()).body) for fault in faults(where, node)]
    assert not found, f"{file.relative_to(SOURCE)}:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "lines, fault",
    [
        ("run: The run.", "does not say what run is"),
        ("run: Of the model, resolved and checked.", "does not say what run is"),
        ("run: Whether the run that was asked for is.", "does not say what run is"),
        ("fun: A trained run of any family.", "fun is no parameter"),
        ("run: A trained run of any family.", "says nothing of ['seed']"),
        ("run, seed: A trained run and the seed of its noise.", ""),
    ],
)
def test_what_says_nothing_is_found(lines: str, fault: str):
    source = f'def score(run, seed):\n    """Score a run.\n\n    Arguments:\n        {lines}\n    """\n'
    found = list(faults("score", ast.parse(source).body[0]))
    assert any(fault in words for words in found) if fault else not found
