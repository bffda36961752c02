"""What a person hands over in Python, as the types that the package takes.

A text is a sequence of characters and a zero is nothing, so what is meant as one name or one number would be taken
for several or for none; and notebooks hold numbers and images in arrays of NumPy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sfumato.core.errors import OptionError


def in_python(values: Any) -> Any:
    """Return a tensor, an array or a number of NumPy as a list or a number of Python, and anything else as it is."""
    return values.tolist() if hasattr(values, "tolist") else values


def several(values: Any) -> tuple[Any, ...]:
    """Return what may be one or several as a tuple: a text or a number alone is one.

    >>> several("fd"), several(["fd", "kid"]), several(0.5), several(())
    (('fd',), ('fd', 'kid'), (0.5,), ())
    """
    values = in_python(values)
    return (values,) if isinstance(values, str) or not isinstance(values, Iterable) else tuple(values)


def assigned(words: Iterable[str]) -> dict[str, str]:
    """Return the values that words NAME=VALUE give to names, as text; a hyphen in a name is an underscore.

    Raises:
        OptionError: For a name that stands twice, of whose values one would be lost.

    >>> assigned(["task=inpaint", "data-fit=3"])
    {'task': 'inpaint', 'data_fit': '3'}
    """
    found: dict[str, str] = {}
    for word in words:
        name, _, text = word.partition("=")
        key = name.strip().replace("-", "_")
        if key in found:
            raise OptionError(
                f"{key} is set twice ({key}={found[key]}, {key}={text.strip()}), and the second would replace the "
                "first. Give one."
            )
        found[key] = text.strip()
    return found
