"""Hand what a parity test measured to whoever writes reports (`tests/evidence.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .measured import SEEN


@pytest.fixture(autouse=True)
def _comparisons(record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Record every (relative error, tolerance) of the test as its property "comparisons"."""
    SEEN.clear()
    yield
    record_property("comparisons", list(SEEN))
