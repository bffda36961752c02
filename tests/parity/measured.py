"""Numbers that remember how they were judged, so that a table of parity can be written from the tests themselves.

`Error` is a relative error: comparing it with a tolerance (`error < 1e-10`) records both. `Found` is a value of ours:
comparing it with a golden number (`== pytest.approx(truth, rel=1e-10)`, or exactly `== truth`) records the relative
error it had and the tolerance it was given. `identical` asks for equal bits. The assertions of the tests stay what they
are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SEEN: list[tuple[float, float]] = []  # (relative error, tolerance) of the test that runs now; `conftest` empties it


class Error(float):
    """A relative error; asking whether it is below a tolerance records the question."""

    def __lt__(self, tolerance: Any) -> bool:
        SEEN.append((float(self), float(tolerance)))
        return float(self) < tolerance

    def __le__(self, tolerance: Any) -> bool:
        SEEN.append((float(self), float(tolerance)))
        return float(self) <= tolerance


class Found(float):
    """A value of ours; asking whether it equals a golden number records by how much it does not."""

    def __eq__(self, truth: object) -> bool:
        expected = float(getattr(truth, "expected", truth))  # type: ignore[arg-type]  # of pytest.approx, or a number
        tolerance = float(getattr(truth, "rel", None) or 0.0)
        SEEN.append((abs(float(self) - expected) / (abs(expected) or 1.0), tolerance))
        return bool(float(self) == truth)

    __hash__ = float.__hash__


def identical(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Require equal arrays, and record a comparison without tolerance."""
    np.testing.assert_array_equal(ours, theirs)
    SEEN.append((0.0, 0.0))
