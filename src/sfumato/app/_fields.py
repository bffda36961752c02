"""Fields of a request: JSON values of a kind and within bounds, or a message that says what is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sfumato.core.find import nearest


class RequestError(ValueError):
    """A request that is not allowed."""


def fields(tree: Any, what: str, names: Sequence[str]) -> Mapping[str, Any]:
    """Return a JSON object that has no other fields than these."""
    if not isinstance(tree, dict):
        raise RequestError(f"{what} is a JSON object; got {short(tree)}.")
    for key in tree:
        if key not in names:
            raise RequestError(nearest("field", key[:40], names))
    return tree


def whole(tree: Mapping[str, Any], name: str, least: int, most: int, default: int) -> int:
    """Return a field that is a whole number within bounds."""
    value = tree.get(name, default)
    if not is_number(value) or value != value // 1:  # infinity too
        raise RequestError(f"{name} is a whole number; got {short(value)}.")
    if not least <= value <= most:
        raise RequestError(f"{name} is a whole number from {least:,} to {most:,}; got {short(value)}.")
    return int(value)


def number(tree: Mapping[str, Any], name: str, least: float, most: float, default: float) -> float:
    """Return a field that is a number within bounds."""
    value = tree.get(name, default)
    if not is_number(value) or not least <= value <= most:
        raise RequestError(f"{name} is a number from {least:g} to {most:g}; got {short(value)}.")
    return float(value)


def named(tree: Mapping[str, Any], name: str, default: str) -> tuple[str, Mapping[str, Any] | None]:
    """Return a part's name and its options, None if they are not given."""
    value, options = tree.get(name, default), tree.get(f"{name}_options")
    if not isinstance(value, str):
        raise RequestError(f"{name} is a name; got {short(value)}.")
    if options is not None and not isinstance(options, dict):
        raise RequestError(f"{name}_options is a JSON object; got {short(options)}.")
    return value, options


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def short(value: Any) -> str:
    """Return a value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
