"""Judge restored pictures whose originals are known: nearness, calibration, and the distance of the whole set.

    psnr, ssim        of one sample and of the mean of the samples, picture by picture
    coverage          how often the truth lies in the band of the samples, over the pixels that the measurement leaves
                      open, beside how often it should (`restoration.coverage`)
    fd                of one sample a picture against real images that were not restored, with the same score of the
                      originals as its floor

Intervals are over pictures: two pixels of one picture are not two observations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.core.images import to_float, to_uint8
from sfumato.core.task import Task
from sfumato.data.dataset import Dataset
from sfumato.evaluation.judge import Judge, without
from sfumato.metrics.features import extractor
from sfumato.metrics.fidelity import has_ssim, psnr, ssim, with_interval
from sfumato.metrics.score import Score
from sfumato.restoration import Restored, coverage, right_share
from sfumato.runs.recipe import Recipe

METRIC = "fd"


def judge_of(recipe: Recipe, data: Dataset, held: Dataset) -> Judge:
    """Return the judge of a restored set: the real images that were not restored, with the originals as the floor.

    Arguments:
        recipe: Says the extractor.
        data: Real images.
        held: Those of them that are restored.

    Raises:
        ValueError: If there are too few for a distance between distributions.
    """
    rest = without(data, held)
    assert isinstance(rest, Dataset)
    judge = Judge.against(rest, extractor(recipe.evaluate.extractor, data.shape), pool=held)
    judge.check(METRIC, len(held))
    return judge


def distance(judge: Judge, found: Restored) -> Score:
    """Return the distance of restored pictures, one sample each, from other real images, with that of the originals."""
    return judge.score(METRIC, judge.seen(to_uint8(found.samples[:, 0]), (METRIC,)))


UNITS = {"PSNR": " dB"}  # of a figure, by the first word of its name


@dataclass(frozen=True)
class Figure:
    """A mean over pictures with its 95% interval.

    Attributes:
        value: The mean.
        low: Lower end of the interval; nan for one picture.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> Figure:
        """Take the mean of one number a picture."""
        return cls(*with_interval(values))

    def __str__(self) -> str:
        known = math.isfinite(self.low) and math.isfinite(self.high)
        return (
            f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"
            if known
            else f"{self.value:.3g} (one picture, so no interval)"
        )


def figures(truth: Tensor, found: Restored, task: Task) -> dict[str, Figure]:
    """Return what the originals say about restored pictures, by name.

    Arguments:
        truth: The originals, uint8 (B, C, H, W).
        found: What was restored.
        task: How they were measured.

    Returns:
        "PSNR, a sample", "PSNR, mean", the same of SSIM if scikit-image is installed and the pictures are large enough,
        and "coverage" if any pixel is open.
    """
    clean = to_float(truth)
    rows = {"a sample": found.samples[:, 0]} | ({"mean": found.mean} if found.samples.shape[1] > 1 else {})
    made = {f"PSNR, {name}": Figure.of(psnr(images, clean)) for name, images in rows.items()}
    if has_ssim():
        scores = {f"SSIM, {name}": ssim(images, clean) for name, images in rows.items()}
        made |= {name: Figure.of(values) for name, values in scores.items() if not np.isnan(values).any()}
    open_pixels = task.open()
    if bool(open_pixels.any()) and found.samples.shape[1] > 1:
        inside = coverage(to_uint8(found.samples.flatten(0, 1)).unflatten(0, found.samples.shape[:2]), truth)
        made["coverage"] = Figure.of(inside[:, open_pixels].mean(1).numpy())
    return made


def expected_coverage(found: Restored) -> float:
    """Return how often the truth should lie in the band of so many samples."""
    return right_share(found.samples.shape[1])


def band_picture(found: Restored) -> Tensor:
    """Return the width of the band as uint8 pictures (B, C, H, W): black for none, white for the range of pixels."""
    low, high = (end.clamp(-1, 1) for end in found.band())
    return to_uint8(high - low - 1)


def columns(found: Restored, measurement: Tensor, truth: Tensor | None, most: int = 4) -> tuple[list[str], Tensor]:
    """Return the column labels and the pictures of a sheet, row by row.

    Arguments:
        found: What was restored.
        measurement: As pictures, uint8 (B, C, H, W).
        truth: The originals, uint8 (B, C, H, W), or None.
        most: Samples shown.

    Returns:
        Labels, and uint8 (B * columns, C, H, W).
    """
    samples = found.samples[:, :most]
    named: list[tuple[str, Tensor]] = [] if truth is None else [("truth", truth)]
    named.append(("measured", measurement))
    named += [(f"sample {k + 1}", to_uint8(samples[:, k])) for k in range(samples.shape[1])]
    if found.samples.shape[1] > 1:
        named += [("mean", to_uint8(found.mean)), (f"{100 * expected_coverage(found):.0f}% band", band_picture(found))]
    images = torch.stack([images for _, images in named], 1)
    return [name for name, _ in named], images.flatten(0, 1)


def as_json(figures: dict[str, Figure]) -> dict[str, Any]:
    """Return figures as JSON values, each [value, low, high]; null for what is not a finite number.

    >>> as_json({"PSNR": Figure(math.inf, math.nan, math.nan)}), str(Figure(20.5, math.nan, math.nan))
    ({'PSNR': [None, None, None]}, '20.5 (one picture, so no interval)')
    """
    values = {name: (one.value, one.low, one.high) for name, one in figures.items()}
    return {name: [value if math.isfinite(value) else None for value in three] for name, three in values.items()}
