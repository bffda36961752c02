"""Write the table of docs/how-to/what-every-flag-means.md anew: run it when a flag of `metrics/flags.py` changes."""

from __future__ import annotations

import re
from pathlib import Path

from sfumato.metrics.flags import FLAGS

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "what-every-flag-means.md"
BEFORE, AFTER = "<!-- flags -->\n", "<!-- end of flags -->\n"


def table() -> str:
    """Return every flag as a row: its words, with *names* in place of its numbers, and its meaning."""
    rows = [f"| {re.sub(r'[{}]', '*', flag.words).removeprefix('* ')} | {flag.meaning} |" for flag in FLAGS.values()]
    return "\n".join(["| flag | what it means, and what to do |", "|---|---|", *rows]) + "\n"


def renewed(text: str) -> str:
    """Return the page with the table as the flags are now."""
    head, rest = text.split(BEFORE)
    return head + BEFORE + table() + AFTER + rest.split(AFTER)[1]


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
