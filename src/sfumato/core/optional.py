"""Packages that only an extra installs: imported where they are needed, or named with the command that gets them."""

from __future__ import annotations

import importlib
from typing import Any


def optional(module: str, extra: str, what: str, error: type[Exception]) -> Any:
    """Import a package of an extra.

    Arguments:
        module: Name of the package.
        extra: Name of the extra that installs it.
        what: What needs the package, the subject of the message.
        error: The kind of error to raise.

    Raises:
        Exception: Of that kind, if the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as missing:
        name = missing.name or module
        raise error(f"{what} needs the package {name}: pip install 'sfumato[{extra}]'.") from None
