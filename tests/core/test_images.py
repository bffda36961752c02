"""The quantiser: exact for every code, loud about non-finite images."""

from __future__ import annotations

import pytest
import torch

from sfumato.core.images import NonFiniteError, finite, to_float, to_uint8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip_of_every_code(dtype: torch.dtype) -> None:
    codes = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_uint8(to_float(codes).to(dtype)), codes)


def test_rounding_takes_the_nearest_code() -> None:
    """|x - decoded| <= 1/255 everywhere in [-1, 1]; truncation is off by up to twice that and is biased."""
    x = torch.linspace(-1, 1, 10_001, dtype=torch.float64)
    error = to_float(to_uint8(x)).double() - x
    assert float(error.abs().max()) <= 1 / 255 + 1e-6
    assert abs(float(error.mean())) < 1e-4
    truncated = to_float(to_uint8(x, "truncate")).double() - x
    assert float(truncated.mean()) < -0.003


def test_values_outside_are_clipped() -> None:
    assert to_uint8(torch.tensor([-5.0, -1.0, 1.0, 5.0])).tolist() == [0, 0, 255, 255]


def test_non_finite_images_are_refused_and_counted() -> None:
    images = torch.zeros(4, 1, 2, 2)
    images[1, 0, 0, 0], images[3, 0, 1, 1] = float("nan"), float("inf")
    assert finite(images).tolist() == [True, False, True, False]
    with pytest.raises(NonFiniteError, match=r"2 of 4 images.*positions \[1, 3\]"):
        to_uint8(images)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="Unknown quantisation 'floor'. Available: round, truncate"):
        to_uint8(torch.zeros(1), "floor")
    with pytest.raises(TypeError, match="uint8"):
        to_float(torch.zeros(1))
