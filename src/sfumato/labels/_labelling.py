"""A labelling: a rule, learned from training images, that gives every image one of a fixed number of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Labelling:
    """Say how labels are learned from images and given to images.

    What is learned is kept with a run, so that images that training never saw are labelled by the same rule.

    Attributes:
        classes: Names of the labels 0, 1, ..., known before any image is seen.
        learn: Maps the training images, uint8 (N, C, H, W), to named tensors, the same for every order of the images.
        label: Maps images, uint8 (n, C, H, W), and those tensors to labels, int64 (n,), each image by itself.
    """

    classes: tuple[str, ...]
    learn: Callable[[Tensor], dict[str, Tensor]]
    label: Callable[[Tensor, Mapping[str, Tensor]], Tensor]
