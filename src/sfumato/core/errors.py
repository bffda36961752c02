"""Errors that a person can mend: an unknown name, with the nearest known ones, and an option that does not fit."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnknownNameError(ValueError):
    """A name that an axis does not have; the message offers the nearest ones."""


class OptionError(ValueError):
    """An option that a part does not take, or a value of the wrong type."""


MANY, NEAR = 40, 8  # names beyond which a message shows the nearest alone, and how many of them


def nearest(kind: str, name: str, available: Iterable[str], all_by: str = "") -> str:
    """Write the standard message for an unknown name.

    Arguments:
        kind: What the name should be of, in words.
        name: The name that was given and is unknown.
        available: The known names.
        all_by: Command that lists them; where there is one, a long list is left to it.

    >>> nearest("sampler", "huen", ["heun", "euler"])
    "Unknown sampler 'huen'. Did you mean 'heun'? Available: euler, heun."
    """
    names = sorted(available)
    close = difflib.get_close_matches(name, names, n=NEAR, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    if len(names) <= MANY or not all_by:
        return f"Unknown {kind} '{name}'.{hint} Available: {', '.join(names)}."
    also = f" Similar: {', '.join(close[1:])}." if close[1:] else ""
    return f"Unknown {kind} '{name}'.{hint}{also} `{all_by}` shows all {len(names)}."


def printable(text: str, keep: str = "") -> str:
    r"""Return text that is safe to print: what is no printable character is written as an escape.

    Arguments:
        text: Such as a file's name, which may hold the codes that move a terminal's cursor, or bytes that are no UTF-8.
        keep: Characters to leave as they are, such as line ends.

    >>> print(printable("a\x1b[2Jb"), printable("c\td", keep="\t") == "c\td")
    a\x1b[2Jb True
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
