"""PSNR and SSIM: closed forms, and scikit-image on the same pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.core.noise import normal
from sfumato.metrics.fidelity import MOST, has_ssim, psnr, ssim, with_interval

needs_ssim = pytest.mark.skipif(not has_ssim(), reason="scikit-image is not installed")


def test_psnr_of_a_known_error() -> None:
    """An error of 0.2 in every pixel of a range of 2 is 20 dB; equal pictures have the most; values outside are cut."""
    truth = torch.zeros(3, 1, 4, 4)
    images = torch.stack([truth[0] + 0.2, truth[1], truth[2] + 5])
    assert psnr(images, truth) == pytest.approx([20, MOST, 10 * np.log10(4)], abs=1e-5)


@needs_ssim
def test_psnr_is_that_of_scikit_image() -> None:
    from skimage.metrics import peak_signal_noise_ratio

    images, truth = (normal(range(i, i + 4), (3, 8, 8), purpose="x").clamp(-1, 1) for i in (0, 10))
    theirs = [
        peak_signal_noise_ratio(b.double().numpy(), a.double().numpy(), data_range=2) for a, b in zip(images, truth)
    ]
    assert psnr(images, truth) == pytest.approx(theirs, rel=1e-6)


@needs_ssim
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 12)])
def test_ssim_of_flat_pictures_is_its_formula(shape: tuple[int, ...]) -> None:
    """(2 a b + c) / (a^2 + b^2 + c) with c = (0.01 * 2)^2, where nothing varies; 1 of a picture with itself."""
    a, b, c = 0.5, 0.2, 0.02**2
    found = ssim(torch.full((1, *shape), a), torch.full((1, *shape), b))
    assert found == pytest.approx([(2 * a * b + c) / (a * a + b * b + c)], rel=1e-6)
    x = normal(range(2), shape, purpose="x").clamp(-1, 1)
    assert ssim(x, x) == pytest.approx([1, 1])
    worse = [float(ssim(x + s * x.flip(0), x).mean()) for s in (0.1, 0.3, 1.0)]
    assert worse == sorted(worse, reverse=True) and worse[0] < 1


@needs_ssim
def test_pictures_below_the_window_have_no_ssim() -> None:
    assert np.isnan(ssim(torch.zeros(2, 1, 6, 6), torch.zeros(2, 1, 6, 6))).all()


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    draws = normal(range(2000), (40,), purpose="draws").numpy()
    inside = [low < 0 < high for _, low, high in map(with_interval, draws)]
    assert 0.92 < np.mean(inside) < 0.97
    assert np.isnan(with_interval(np.array([1.0]))[1])
