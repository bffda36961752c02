"""Features: where images become the numbers that are compared.

An extractor maps uint8 images to rows of d numbers and says exactly how: resize, scaling, dtype and the hash of its
weights all belong to the protocol of a score, because changing any of them changes the score.  Each extractor is one
file in `sfumato.metrics.extractors`, a function of the file's name that takes the shape of the images.

Features are taken in float32 with TF32 and autocast off; everything after them is float64.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from sfumato.core import outside
from sfumato.core.find import check_options, entries, find

ImageShape = tuple[int, int, int]
_lowered: ContextVar[str] = ContextVar("lowered", default="")


class ExtractorShapeError(ValueError):
    """Images of a shape that an extractor does not take."""


class Extractor(Protocol):
    """Turn images into features.

    Attributes:
        name: Name in the protocol and in `FD[name]`.
        dimension: Number of features d.
        weights_hash: sha256 of the weights, or the rule that makes them.
    """

    name: str
    dimension: int
    weights_hash: str

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, C, H, W) to float32 features (B, d)."""
        ...

    def describe(self) -> dict[str, Any]:
        """Describe resize, scaling, dtype, layer: whatever changes the features. JSON values only."""
        ...


def available() -> dict[str, Callable[..., Extractor]]:
    """Return every extractor's maker by name."""
    return entries("extractor")


def extractor(name: str, shape: ImageShape, options: Mapping[str, Any] | None = None) -> Extractor:
    """Make an extractor for images of a given shape.

    Arguments:
        name: One of `available()`; dashes and underscores are the same.
        shape: (C, H, W) of the images.
        options: The extractor's own, such as `weights` of "inception".

    Raises:
        ValueError: For an unknown name or option, or a shape the extractor does not take.
    """
    maker = find("extractor", name)
    return recorded(maker(shape, **check_options(f"extractor '{name}'", maker, options or {}, fixed=("shape",))), maker)


class Recorded:
    """An extractor from outside this package: the hash of its code is among what changes its features.

    Arguments:
        extract: The extractor.
        code: Hash of the source behind it.
    """

    def __init__(self, extract: Extractor, code: str) -> None:
        self.name, self.dimension, self.weights_hash = extract.name, extract.dimension, extract.weights_hash
        self._extract, self._code = extract, code

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, C, H, W) to float32 features (B, d)."""
        return self._extract(images)

    def describe(self) -> dict[str, Any]:
        """Describe what changes the features, its code too."""
        return {**self._extract.describe(), "code": self._code}


def recorded(made: Extractor, maker: Callable[..., Any]) -> Extractor:
    """Return an extractor that says the hash of its code; one of this package is named by version and weights.

    Arguments:
        made: The extractor.
        maker: What made it.
    """
    if type(made).__module__.startswith("sfumato."):
        return made
    return Recorded(made, "+".join(dict.fromkeys([outside.code_of(maker), outside.code_of(type(made))])))


def check_shape(name: str, shape: ImageShape, own: ImageShape) -> None:
    """Refuse images of another shape than the one that an extractor's network was made for."""
    if shape != own:
        raise ExtractorShapeError(
            f"Extractor '{name}' takes images of shape {own}, got {shape}. Choose one made for these images; 'pixels' "
            "and 'random' take any size."
        )


def check_colours(name: str, shape: ImageShape) -> None:
    """Refuse images that are neither grey nor colour, for an extractor that repeats grey in three channels."""
    if shape[0] not in (1, 3):
        raise ExtractorShapeError(f"Extractor '{name}' takes images of 1 or 3 channels, got {shape[0]}.")


def check_images(name: str, images: Tensor, shape: ImageShape) -> None:
    """Refuse images that are not uint8 of the shape an extractor was made for."""
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != shape:
        raise ValueError(
            f"Extractor '{name}' was made for uint8 images (B, {shape[0]}, {shape[1]}, {shape[2]}); got "
            f"{images.dtype} {tuple(images.shape)}. Quantise with core.images.to_uint8; images of "
            "another shape need an extractor of their own."
        )


def file_hash(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def lowered(kind: Literal["bfloat16", "tf32"]) -> Iterator[None]:
    """Let extractors compute in a lower precision inside the block: to see what that does, never for a score."""
    token = _lowered.set(kind)
    try:
        yield
    finally:
        _lowered.reset(token)


@contextlib.contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Switch gradients, autocast and TF32 off inside the block, but for what `lowered` asks."""
    kind = _lowered.get()
    matmul, conv = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = kind == "tf32"
    try:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=kind == "bfloat16"):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, conv


def stream(extract: Extractor, batches: Iterable[Tensor]) -> Iterator[np.ndarray]:
    """Yield the features of each batch as float32 arrays (b, d).

    Arguments:
        extract: The extractor.
        batches: uint8 images (b, C, H, W), on any device.

    Raises:
        ValueError: If an image's features are not finite.
    """
    seen = 0
    for images in batches:
        rows = extract(images).float().cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise ValueError(
                f"Extractor '{extract.name}' gave NaN or infinity for {len(bad)} images, the first at "
                f"position {seen + bad[0]}. Its weights or these images are damaged."
            )
        seen += len(rows)
        yield rows


def features_of(extract: Extractor, images: Tensor, batch: int = 250) -> np.ndarray:
    """Return the features of uint8 images (n, C, H, W) as one float32 array (n, d)."""
    if len(images) == 0:
        raise ValueError("There are no images to take features of.")
    return np.concatenate(list(stream(extract, images.split(batch))))
