"""The intervals hold the truth as often as they say: the simulation behind docs/results/metrics.md, smaller."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location(
    "coverage_benchmark", Path(__file__).parents[2] / "benchmarks" / "coverage.py"
)
assert SPEC is not None and SPEC.loader is not None
bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)


@pytest.mark.slow
@pytest.mark.parametrize("case", bench.CASES, ids=lambda case: case.__name__)
def test_the_interval_covers_and_the_value_is_unbiased(case):
    """92 to 98% where the sides differ; where they are alike the interval may be wider, never narrower."""
    found = bench.simulate(case, runs=300, seed=1)
    assert found["coverage"] >= 0.92 - 0.03  # 3 standard errors of 300 runs below
    assert case in bench.NULLS or found["coverage"] <= 0.995
    assert abs(found["error"]) < 3.5 * found["se"]
    assert found["missed above"] <= 0.06
