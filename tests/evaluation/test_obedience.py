"""Asked against measured: intervals that hold the truth where several samples share a condition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sfumato.evaluation.tables.obedience import accuracy, correlation, effective
from sfumato.metrics.prdc import NORMAL

CONDITIONS, EACH, TRIALS = 60, 10, 200


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_samples_of_one_condition_count_as_one_where_they_are_alike(rng: np.random.Generator) -> None:
    u = rng.normal(size=50)
    u -= u.mean()
    assert effective(u, np.arange(50)) == pytest.approx(50)
    assert effective(np.repeat(u, 4), np.repeat(np.arange(50), 4)) == pytest.approx(50, rel=0.02)
    assert effective(np.zeros(40), np.arange(40) // 4) == 10


def test_intervals_of_conditions_met_once_are_those_of_fisher_and_wilson(rng: np.random.Generator) -> None:
    asked, measured = rng.normal(size=(2, 80))
    found = correlation(asked, measured, np.arange(80))
    half = NORMAL / math.sqrt(77)
    assert found["interval"] == pytest.approx([math.tanh(math.atanh(found["value"]) + s * half) for s in (-1, 1)])
    found = accuracy(np.repeat([0.0, 1.0], 40), np.ones(80), np.arange(80))
    assert (found["value"], found["interval"]) == (0.5, pytest.approx([0.393, 0.607], abs=1e-3))  # Wilson's of 40 of 80


@pytest.mark.parametrize("what", ["correlation", "accuracy"])
def test_intervals_hold_the_truth_where_conditions_are_met_often(what: str, rng: np.random.Generator) -> None:
    """A condition shifts all samples made under it; as if they were independent, the intervals would be too short."""
    shape, where = (TRIALS, CONDITIONS), np.repeat(np.arange(CONDITIONS), EACH)
    held = {"shared": 0, "as if independent": 0}
    for asked, shift, noise in zip(rng.normal(size=shape), rng.normal(size=shape), rng.normal(size=(*shape, EACH))):
        measured = ((asked + shift)[:, None] + 0.5 * noise).reshape(-1)
        row, truth = np.repeat(asked, EACH), 1 / math.sqrt(2.25)
        if (
            what == "accuracy"
        ):  # the sign of a sum of two normals agrees with the first with chance 1/2 + arcsin(r) / pi
            row, measured, truth = (row > 0) * 1.0, (measured > 0) * 1.0, 0.5 + math.asin(truth) / math.pi
        score = {"correlation": correlation, "accuracy": accuracy}[what]
        for name, conditions in (("shared", where), ("as if independent", np.arange(len(where)))):
            low, high = score(row, measured, conditions)["interval"]
            held[name] += low <= truth <= high
    assert 0.91 <= held["shared"] / TRIALS <= 0.985, held
    assert held["as if independent"] / TRIALS < 0.8, held


def test_a_correlation_with_a_constant_is_none(rng: np.random.Generator) -> None:
    assert correlation(np.ones(9), rng.normal(size=9), np.arange(9)) is None
    assert accuracy(np.ones(0), np.ones(0), np.arange(0)) is None
