"""What a person hands over in Python, as the types that the package takes.

A text is a sequence of characters and a zero is nothing, so what is meant as one name or one number would be taken
for several or for none; and notebooks hold numbers and images in arrays of NumPy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


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
