"""How much a score moves with what should not matter: arithmetic, resize, threads, batch, device, file codec.

The same images are scored again with one thing changed at a time. What a machine does to all images alike is changed on
both sides; what happened to the generated images alone, such as a file in between, on that side. The change stands
beside the interval of the score itself, so that a reader sees which of them could turn a comparison round, and has an
interval of its own, from the images that both scores share.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sfumato.core.find import options_of
from sfumato.data.decoding import FILTERS
from sfumato.metrics import features
from sfumato.metrics.features import Extractor, available, extractor, features_of
from sfumato.metrics.jackknife import Estimate, jackknife
from sfumato.metrics.metric import Metric, find_metric
from sfumato.metrics.resize import RESIZES
from sfumato.metrics.statistics import Features
from sfumato.progress import bar_of

BATCH = 250
CODECS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> Pillow's format and its options
    "png": ("PNG", {}),
    "webp, lossless": ("WEBP", {"lossless": True}),
    "jpeg, quality 95": ("JPEG", {"quality": 95}),
    "jpeg, quality 75": ("JPEG", {"quality": 75}),
    "webp, quality 80": ("WEBP", {"quality": 80}),
}


@dataclass(frozen=True)
class Change:
    """One thing that is changed.

    Attributes:
        what: Kind of change: "dtype", "resize", "threads", "batch", "device" or "codec".
        name: The change in words.
        both: Whether the real images are changed, too.
        images: What happens to the images, uint8 (B, C, H, W) -> the same.
        inside: Context in which features are computed.
        batch: Images at a time.
        device: Where features are computed.
        options: Options of the extractor that differ.
        rounded: What happens to features.
    """

    what: str
    name: str
    both: bool = True
    images: Callable[[Tensor], Tensor] = lambda images: images
    inside: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    batch: int = BATCH
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)
    rounded: Callable[[Features], Features] = lambda rows: rows


@dataclass(frozen=True)
class Moved:
    """What a change did to one score.

    Attributes:
        change: What was changed.
        metric: Name of the score, such as "FD[digits]".
        value: The score with the change.
        by: How much it moved, with an interval from the images that both share.
        share: The same as a share of half the interval of the score itself; infinite if that has no width.
    """

    change: Change
    metric: str
    value: float
    by: Estimate
    share: float


@dataclass(frozen=True)
class Sensitivity:
    """The scores as they are, by metric, and what each change did to them."""

    base: Mapping[str, Estimate]
    moved: Sequence[Moved]
    n: int
    m: int


def coded(images: Tensor, form: str, options: Mapping[str, Any]) -> Tensor:
    """Return uint8 images (B, C, H, W), C = 1 or 3, written in a format of Pillow's and read again."""
    if images.shape[1] not in (1, 3):
        raise ValueError(f"Files of {form} hold 1 or 3 channels; these images have {images.shape[1]}.")
    out = np.empty_like(images.numpy())
    mode = "L" if images.shape[1] == 1 else "RGB"
    for i, pixels in enumerate(images.permute(0, 2, 3, 1).numpy()):
        file = io.BytesIO()
        Image.fromarray(pixels.squeeze(2) if mode == "L" else pixels).save(file, form, **options)
        read = np.asarray(Image.open(file).convert(mode))
        out[i] = read[None] if mode == "L" else read.transpose(2, 0, 1)
    return torch.from_numpy(out)


def resized(images: Tensor, name: str) -> Tensor:
    """Return uint8 images doubled by a filter and halved again by the mean of 2x2."""
    height, width = images.shape[-2:]
    out = np.empty_like(images.numpy())
    for i, image in enumerate(images.numpy()):
        for c, plane in enumerate(image):
            large = Image.fromarray(plane).resize((2 * width, 2 * height), FILTERS[name])
            out[i, c] = np.asarray(large.resize((width, height), FILTERS["box"]))
    return torch.from_numpy(out)


def in_half(rows: Features) -> Features:
    """Return features as they come back from 16 bits."""
    return np.asarray(rows, np.float16).astype(np.float32)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def changes(name: str, options: Mapping[str, Any]) -> list[Change]:
    """Return what can be changed for an extractor on this machine.

    Arguments:
        name: The extractor.
        options: Its options as they are.
    """
    half = partial(features.lowered, "bfloat16")
    found = [
        Change("dtype", "network in bfloat16", inside=half),
        Change("dtype", "features rounded to float16", rounded=in_half),
    ]
    parameters = options_of(available()[name.replace("_", "-")]) if ":" not in name else {}
    if "resize" in parameters:
        now = options.get("resize", parameters["resize"].default)
        found += [Change("resize", mode, options={"resize": mode}) for mode in RESIZES if mode != now]
    else:
        found += [
            Change("resize", f"doubled by {one}, halved", both=False, images=partial(resized, name=one))
            for one in ("nearest", "bilinear", "bicubic", "lanczos")
        ]
    counts = sorted({1, 2, os.cpu_count() or 1} - {torch.get_num_threads()})
    found += [Change("threads", f"{n} of torch", inside=partial(threads, n)) for n in counts]
    found += [Change("batch", f"{size} images at a time", batch=size) for size in (25, 1000)]
    if torch.cuda.is_available():
        found += [
            Change("device", "cuda", device="cuda"),
            Change("device", "cuda, TF32", device="cuda", inside=partial(features.lowered, "tf32")),
            Change("device", "cuda, network in bfloat16", device="cuda", inside=half),
        ]
    found += [
        Change("codec", one, both=False, images=partial(coded, form=form, options=with_options))
        for one, (form, with_options) in CODECS.items()
    ]
    both = CODECS["jpeg, quality 75"]
    return [*found, Change("codec", "jpeg, quality 75", images=partial(coded, form=both[0], options=both[1]))]


def sensitivity(
    made: Tensor,
    real: Tensor,
    name: str,
    *,
    options: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = ("fd", "kid"),
    quiet: bool = False,
) -> Sensitivity:
    """Score images as always and with one thing changed at a time.

    Arguments:
        made: Generated images, uint8 (n, C, H, W).
        real: The reference, uint8 (m, C, H, W).
        name: Feature extractor.
        options: Its own.
        metrics: Names of metrics of features.
        quiet: Whether the progress bar is left out.

    Raises:
        ValueError: If there are too few images for a metric, or the two sets differ in shape.
    """
    if made.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"Two sets are compared in one shape; got {tuple(made.shape[1:])} and {tuple(real.shape[1:])}. Prepare one "
            "of them in the other's."
        )
    kept, shape = dict(options or {}), (made.shape[1], made.shape[2], made.shape[3])
    chosen = [find_metric(one) for one in metrics]
    for metric in chosen:
        metric.check(len(made), len(real))
    usual, plain = extractor(name, shape, kept), Change("", "")
    x, y = (_features(usual, images, plain) for images in (made, real))
    base = {f"{metric.name}[{usual.name}]": _estimate(metric, x, y) for metric in chosen}
    moved = []
    for change in bar_of(None, "change", "  changing", quiet=quiet, iterable=changes(name, kept)):
        extract = extractor(name, shape, {**kept, **change.options}) if change.options else usual
        x_then = _features(extract, made, change)
        y_then = _features(extract, real, change) if change.both else y
        for (title, before), metric in zip(base.items(), chosen):
            after = _estimate(metric, x_then, y_then)
            by = _difference(after, before)
            reach = (before.interval[1] - before.interval[0]) / 2
            share = abs(by.value) / reach if reach else math.inf if by.value else 0.0
            moved.append(Moved(change, title, after.value, by, share))
    return Sensitivity(base, moved, len(made), len(real))


def _features(extract: Extractor, images: Tensor, change: Change) -> Features:
    with change.inside():
        rows = features_of(extract, change.images(images).to(change.device), change.batch)
    return change.rounded(rows)


def _estimate(metric: Metric, x: Features, y: Features) -> Estimate:
    held = metric.hold(y, None, len(x))
    return metric.estimate(x, held, (None, None), (None, None))


def _difference(after: Estimate, before: Estimate) -> Estimate:
    """Return how much an estimate moved, with the jackknife of the difference where both have one."""
    by = after.value - before.value
    if not (after.left_out and before.left_out):
        return Estimate(by, (by, by), 0.0, by, groups=0)
    left_out = np.subtract(after.left_out, before.left_out)
    return jackknife(after.plain - before.plain, left_out, unbiased=after.value == after.plain)
