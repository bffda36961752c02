"""Write the line numbers of docs/architecture.md anew: run it when the laws say that a reference has moved.

A reference is `FILE:LINE` followed by `NAME`, a function, class or method of src/sfumato/FILE.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
SOURCE = Path(__file__).parents[1] / "src" / "sfumato"
REFERENCE = re.compile(r"`([\w/]+\.py):(\d+)` `([\w.]+)`")


def line_of(file: str, name: str) -> int:
    """Return the line where a function, class or method is defined.

    Raises:
        LookupError: If the file defines no such name.
    """
    body: list[ast.stmt] = ast.parse((SOURCE / file).read_text()).body
    line = 0
    for piece in name.split("."):
        kinds = ast.FunctionDef | ast.ClassDef
        found = next((node for node in body if isinstance(node, kinds) and node.name == piece), None)
        if found is None:
            raise LookupError(f"{file} defines no {name}: correct the reference in {PAGE.name}.")
        body, line = found.body, found.lineno
    return line


def renewed(text: str) -> str:
    """Return a page with the line numbers of its references as they are now."""
    return REFERENCE.sub(lambda m: f"`{m[1]}:{line_of(m[1], m[3])}` `{m[3]}`", text)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
