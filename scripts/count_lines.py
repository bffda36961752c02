"""Count the lines of a tree of Python files: code, docstrings, comments, blank.

    python scripts/count_lines.py [FOLDER] [--most CODE_LINES]

A line is code if a token other than a comment or a docstring stands on it. With --most the exit status is 1 when there
are more lines of code.
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

QUIET = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def docstring_lines(tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that docstrings cover."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            found.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return found


def count(source: str) -> Counter[str]:
    """Return how many lines of each kind a source text has."""
    docs = docstring_lines(ast.parse(source))
    code: set[int] = set()
    comments: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        lines = range(token.start[0], token.end[0] + 1)
        if token.type == tokenize.COMMENT:
            comments.update(lines)
        elif token.type not in QUIET:
            code.update(lines)
    code -= docs
    comments -= code | docs
    total = len(source.splitlines())
    return Counter(
        code=len(code), docstrings=len(docs), comments=len(comments), blank=total - len(code | docs | comments)
    )


def main() -> int:
    """Print the table, largest folder first."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent.parent / "src")
    asked.add_argument("--most", type=int, help="exit with 1 if there are more lines of code")
    options = asked.parse_args()
    rooms: dict[str, Counter[str]] = {}
    files = sorted(options.folder.rglob("*.py"))
    for file in files:
        inside = file.relative_to(options.folder).parts
        room = "/".join(inside[:2]) if len(inside) > 2 else "/".join(inside[:1])
        rooms.setdefault(room, Counter()).update(count(file.read_text()))
    total = sum(rooms.values(), Counter())
    print(f"{'':32}{'code':>8}{'docstrings':>12}{'comments':>10}{'blank':>8}")
    for room, lines in [*sorted(rooms.items(), key=lambda pair: -pair[1]["code"]), ("total", total)]:
        print(f"{room:32}{lines['code']:8,}{lines['docstrings']:12,}{lines['comments']:10,}{lines['blank']:8,}")
    print(f"{len(files)} files")
    if options.most is not None and total["code"] > options.most:
        print(f"{total['code']:,} lines of code are more than {options.most:,}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
