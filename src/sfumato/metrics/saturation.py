"""Saturation, the share of an image's channel values that are 0 or 255, and contrast, their standard deviation.

Strong guidance pushes images out of the range of the data; clipping puts what left it onto 0 and 255, and colours burn
out.  The share of such values, mean over images, shows it without any network.  It should be what it is for real
images: a black background is saturated and right, so the value of the reference stands beside it as its floor, and
neither more nor less is better. So it is with contrast, which guidance raises before anything is clipped; it is counted
in the range [-1, 1] of the model.

A mean has no bias of finite n, so the floor need not hold as many images as the score.  The interval is that of the
delete-a-group jackknife over images (`metrics.jackknife`), the share of each class kept where it was chosen.

References:
    Saharia et al. Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding. 2022, section 2.3
        (saturation under large guidance weights). https://arxiv.org/abs/2205.11487
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.metrics.features import ImageShape, check_images
from sfumato.metrics.jackknife import GROUPS, Estimate, check_groups, deal, jackknife, weights
from sfumato.metrics.statistics import Features, check_features


class _OneNumber:
    name: str
    weights_hash = "none"
    dimension = 1

    def __init__(self, shape: ImageShape):
        self.shape = shape


class Saturation(_OneNumber):
    """The share of saturated values of each image, one number in [0, 1].

    Arguments:
        shape: (C, H, W) of the images.

    >>> Saturation((1, 2, 2))(torch.tensor([[[[0, 1], [254, 255]]]], dtype=torch.uint8)).tolist()
    [[0.5]]
    """

    name = "saturation"

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, C, H, W) to float32 shares (B, 1)."""
        check_images(self.name, images, self.shape)
        return ((images == 0) | (images == 255)).flatten(1).mean(1, dtype=torch.float32, keepdim=True)

    def describe(self) -> dict[str, Any]:
        """Describe what is counted; part of a score's protocol."""
        return {"layer": "channel values", "counted": [0, 255], "resize": "none", "dtype": "float32"}


class Contrast(_OneNumber):
    """The standard deviation of the channel values of each image in [-1, 1], one number in [0, 1].

    Arguments:
        shape: (C, H, W) of the images.

    >>> Contrast((1, 1, 2))(torch.tensor([[[[0, 255]]], [[[7, 7]]]], dtype=torch.uint8)).tolist()
    [[1.0], [0.0]]
    """

    name = "contrast"

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, C, H, W) to float32 deviations (B, 1)."""
        check_images(self.name, images, self.shape)
        return (images.flatten(1).float() / 127.5).std(1, correction=0, keepdim=True)

    def describe(self) -> dict[str, Any]:
        """Describe what is computed; part of a score's protocol."""
        return {"layer": "channel values", "computed": "standard deviation", "resize": "none", "dtype": "float32"}


def mean_share(shares: Features, labels: np.ndarray | None = None) -> Estimate:
    """Return the mean over images with its interval.

    Arguments:
        shares: (n, 1), one of each image, n >= 40.
        labels: int (n,), classes whose numbers were chosen; None where they are random.
    """
    x = np.asarray(check_features(shares, "shares"), np.float64)[:, 0]
    check_groups(len(x), len(x), GROUPS)
    member = deal(len(x), GROUPS, labels)
    kept = [weights(member, labels, k) for k in range(GROUPS)]
    return jackknife(float(x.mean()), np.array([w @ x / w.sum() for w in kept]), unbiased=True)
