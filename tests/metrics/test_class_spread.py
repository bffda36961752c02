"""The spread of a set of images: its value for a Gaussian, leaving groups out, and how often its interval holds it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sfumato.metrics import class_spread as module
from sfumato.metrics.class_spread import class_spread
from sfumato.metrics.jackknife import deal


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def pairs(x: np.ndarray) -> float:
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    return float(distance.sum() / (len(x) * (len(x) - 1)))


def test_it_is_the_mean_over_pairs_with_and_without_each_group(monkeypatch):
    x = rng(0).normal(size=(90, 5))
    monkeypatch.setattr(module, "BLOCK", 32)  # three blocks
    found, member = class_spread(x), deal(90)
    assert found.value == found.plain == pytest.approx(pairs(x))
    assert found.left_out == pytest.approx([pairs(x[member != k]) for k in range(20)])


@pytest.mark.parametrize("d", [1, 3])
def test_of_a_gaussian_it_is_known(d):
    """|x - y| has the chi distribution times sqrt 2: 2 Gamma((d + 1)/2) / Gamma(d/2)."""
    truth = 2 * math.gamma((d + 1) / 2) / math.gamma(d / 2)
    found = class_spread(rng(1).normal(size=(2000, d)))
    assert abs(found.value - truth) < 3 * found.se < 0.1 * truth


def test_its_interval_holds_the_truth():
    truth = 2 / math.sqrt(math.pi)
    draws = rng(2).normal(size=(300, 60, 1))
    held = [low <= truth <= high for low, high in (class_spread(x).interval for x in draws)]
    assert 0.91 < np.mean(held) < 0.985


def test_equal_images_have_none_and_few_are_refused():
    assert class_spread(np.ones((40, 3))).interval == (0, 0)
    with pytest.raises(ValueError, match="at least 40 images"):
        class_spread(np.ones((39, 3)))
