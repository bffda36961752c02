"""Laws of judging images, on real digits: zero, order, invariance, and monotony under corruption."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.core.find import find
from sfumato.core.images import to_float, to_uint8
from sfumato.core.noise import normal
from sfumato.metrics.features import extractor, features_of
from sfumato.metrics.frechet import frechet, frechet_plain
from sfumato.metrics.kid import kid
from sfumato.metrics.statistics import Groups

SHAPE = (1, 8, 8)
NAMES = ("digits", "pixels", "random")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    every = find("data", "digits")(split="all").images
    return every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))]


def of(name: str, images: torch.Tensor, batch: int = 250) -> np.ndarray:
    return features_of(extractor(name, SHAPE), images, batch)


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_at_distance_zero_from_itself(name: str, images: torch.Tensor) -> None:
    x = of(name, images)
    assert frechet_plain(x, x) == pytest.approx(0, abs=1e-6 * np.trace(np.cov(x.T.astype(float))))


@pytest.mark.parametrize("name", ["digits", "pixels"])
def test_two_halves_of_one_set_are_not_distinguishable(name: str, images: torch.Tensor) -> None:
    x = of(name, images)
    fd, kernel = frechet(x[::2], x[1::2]), kid(x[::2], x[1::2])
    assert fd.interval[0] < 0 < fd.interval[1]
    assert kernel.interval[0] < 0 < kernel.interval[1]
    assert fd.plain > fd.interval[1]  # the plain value would say that real images differ from real images


@pytest.mark.parametrize("name", NAMES)
def test_scores_grow_with_corruption(name: str, images: torch.Tensor) -> None:
    half, other = images[:800], of(name, images[800:])
    noise = normal(range(800), SHAPE, seed=1, purpose="corruption")
    noisy = [of(name, to_uint8(to_float(half) + strength * noise)) for strength in (0, 0.1, 0.2, 0.4)]
    for metric in (frechet, kid):
        values = [metric(x, other).value for x in noisy]
        assert values == sorted(values)
        assert values[-1] > 10 * abs(values[0])


@pytest.mark.parametrize("name", NAMES)
def test_scores_do_not_depend_on_batch_size_or_order_of_files(name: str, images: torch.Tensor) -> None:
    x, y = images[:700], of(name, images[700:])
    once = of(name, x)
    assert frechet_plain(of(name, x, batch=33), y) == pytest.approx(frechet_plain(once, y), rel=1e-4)
    mixed = torch.randperm(700, generator=torch.Generator().manual_seed(1)).numpy()
    assert frechet_plain(once[mixed], y) == pytest.approx(frechet_plain(once, y), rel=1e-6)  # constant pixels: rank < d
    assert kid(once[mixed], y).value == pytest.approx(kid(once, y).value, rel=1e-8)


def test_shards_of_a_stream_merge_to_the_whole(images: torch.Tensor) -> None:
    """Moments of shards, as several processes would send them, add up to those of one process."""
    x = of("digits", images)
    whole, shards = Groups.of(x).total(), [Groups.of(part).total() for part in np.array_split(x, 3)]
    merged = shards[0] + shards[1] + shards[2]
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.cov, whole.cov, rtol=1e-9, atol=1e-12)
