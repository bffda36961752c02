"""How near pictures are to their originals, one by one: PSNR and SSIM.

    PSNR = 10 log10(range^2 / MSE) in dB

A restoration that is right on average need not be near: of two equally plausible ones the mean has the larger PSNR, and
looks like neither. So they are quoted for a sample and for the mean, beside a distance between distributions.

References:
    Wang, Bovik, Sheikh, Simoncelli. Image Quality Assessment: From Error Visibility to Structural Similarity. 2004.
    https://doi.org/10.1109/TIP.2003.819861 (with the Gaussian window of section III.B)
"""

from __future__ import annotations

import importlib.util

import numpy as np
from torch import Tensor

from sfumato.core.optional import optional

RANGE = 2.0  # of pixels in [-1, 1]
WINDOW = 7  # the least height and width that SSIM takes
MOST = 100.0  # dB of equal pictures, whose PSNR is infinite


def psnr(images: Tensor, truth: Tensor) -> np.ndarray:
    """Return the peak signal-to-noise ratio of each picture in dB, at most `MOST`.

    Arguments:
        images: Float in [-1, 1], shape (B, C, H, W); values outside are clipped.
        truth: The same shape.
    """
    error = (images.clamp(-1, 1) - truth).double().square().flatten(1).mean(1).numpy()
    return np.minimum(10 * np.log10(RANGE**2 / np.maximum(error, 1e-12)), MOST)


def has_ssim() -> bool:
    """Return whether scikit-image is installed, which computes SSIM."""
    return importlib.util.find_spec("skimage") is not None


def ssim(images: Tensor, truth: Tensor) -> np.ndarray:
    """Return the structural similarity of each picture in [-1, 1]; nan for pictures smaller than its window.

    Arguments:
        images: Float in [-1, 1], shape (B, C, H, W); values outside are clipped.
        truth: The same shape.
    """
    structural_similarity = optional("skimage.metrics", "restore", "SSIM", ValueError).structural_similarity
    if min(truth.shape[-2:]) < WINDOW:
        return np.full(len(truth), np.nan)
    pairs = zip(images.clamp(-1, 1).double().numpy(), truth.double().numpy())
    return np.array(
        [
            structural_similarity(
                a,
                b,
                data_range=RANGE,
                channel_axis=0,
                gaussian_weights=min(a.shape[-2:]) >= 11,
                use_sample_covariance=False,
            )
            for a, b in pairs
        ]
    )


def with_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return (mean, low, high) of independent values: the mean and its 95% interval from the standard error.

    >>> [round(v, 3) for v in with_interval(np.array([1.0, 2.0, 3.0]))]
    [2.0, 0.868, 3.132]
    """
    mean = float(values.mean())
    error = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return mean, mean - error, mean + error
