"""Bars of work: on a terminal a bar moves, in a pipe or a file a line now and then says how far long work has come.

A notebook shows the bar of its own. What is said while a bar moves is said above it (`say`).
"""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm

PIPED = {"mininterval": 10.0, "delay": 5.0}  # seconds between lines, and before the first


Bar = tqdm


def say(text: str) -> None:
    """Print a line, above the bars that move."""
    tqdm.write(text)


def bar_of(total: int | None, unit: str, what: str = "", *, quiet: bool = False, **more: Any) -> Any:
    """Return a bar of tqdm, which is to be closed, or iterated over if `iterable` is given.

    Arguments:
        total: Things to be done; None if that is not known, or is the length of `iterable`.
        unit: What one of them is called.
        what: What is done.
        quiet: Whether nothing is shown.
        more: Further options of tqdm.
    """
    often = {} if sys.stderr is not None and sys.stderr.isatty() else PIPED
    return tqdm(total=total, unit=unit, desc=what, disable=quiet, dynamic_ncols=True, **{**often, **more})
