"""Options of a command in tests: the usual ones, unless a test gives its own."""

from __future__ import annotations

from collections.abc import Sequence


def beside(words: Sequence[object], usual: Sequence[object]) -> list[object]:
    """Return the usual options, each with its value, without those that stand among the words."""
    found: list[object] = []
    for i, word in enumerate(usual):
        if str(word).startswith("--") and word not in words:
            value = usual[i + 1 : i + 2]
            found += [word, *(each for each in value if not str(each).startswith("--"))]
    return found
