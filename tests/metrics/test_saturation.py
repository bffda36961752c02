"""Saturation: counted by hand, and its interval is that of a mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.evaluation.judge import Generated, Judge
from sfumato.metrics.protocol import Reference
from sfumato.metrics.saturation import Saturation, mean_share
from sfumato.metrics.score import compare, excess


def test_only_the_ends_of_the_range_count_channel_by_channel() -> None:
    images = torch.full((2, 3, 2, 2), 254, dtype=torch.uint8)
    images[0, 0], images[0, 1, 0, 0], images[1, 2, 1, 1] = 255, 0, 1
    assert Saturation((3, 2, 2))(images)[:, 0].tolist() == pytest.approx([5 / 12, 0])


def test_the_interval_is_that_of_a_mean() -> None:
    """Against the textbook's s / sqrt(n), and about 95% of intervals hold the truth."""
    rng, hits, errors = np.random.default_rng(0), [], []
    for _ in range(200):
        shares = rng.beta(2, 5, (400, 1))
        found = mean_share(shares)
        hits.append(found.interval[0] <= 2 / 7 <= found.interval[1])
        errors.append(found.se / (shares.std(ddof=1) / 20))
        assert found.value == pytest.approx(shares.mean())
    assert 0.9 <= np.mean(hits) <= 0.99
    assert np.mean(errors) == pytest.approx(1, abs=0.05)


def test_chosen_classes_are_not_counted_as_noise() -> None:
    labels = np.arange(400) % 2
    shares = (labels + np.random.default_rng(1).normal(0, 0.01, 400))[:, None]
    assert mean_share(shares, labels).se < 0.001 < mean_share(shares).se


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 40 images"):
        mean_share(np.zeros((39, 1)))


def test_two_models_are_told_apart_without_calling_either_better() -> None:
    """More saturated than real images, or less, is equally wrong; how far is a difference with an interval."""
    rng, extract = np.random.default_rng(2), Saturation((1, 8, 8))
    real, some, more = (rng.beta(a, 5, (400, 1)) for a in (2, 2, 4))
    where = Reference("noise", "hash", "test", "", "", 400)
    judge = Judge(extract, (1, 8, 8), where, lambda one: real, np.zeros((400, 32), np.uint8))
    low, high = (
        judge.score("saturation", Generated({"saturation": x}, facts={"seeds": [0, 400]})) for x in (some, more)
    )
    assert compare(low, high).verdict == "the second is higher"
    assert compare(high, low).verdict == "the first is higher"
    assert compare(low, low).verdict == "not distinguishable"
    above, same = excess(high), excess(low)
    assert above is not None and above.interval[0] < 4 / 9 - 2 / 7 < above.interval[1] and above.interval[0] > 0
    assert same is not None and same.interval[0] < 0 < same.interval[1]
