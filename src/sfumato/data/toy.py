"""toy: data whose distribution is known, for laws, tests and first steps.

Two-dimensional points (`points`) are exact samples of a density on the plane. Synthetic images (`toy`) are small
labelled pictures made by a rule from numbers addressed by (seed, index): image i is the same however many are made.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.core.find import UnknownNameError, nearest
from sfumato.core.noise import normal, uniform
from sfumato.data.dataset import Dataset
from sfumato.data.splits import HELD_OUT, split_by_hash

SHAPES = ("disc", "square", "ring", "cross")
KINDS = {"shapes": SHAPES, "mixture": ("upper-left", "upper-right", "lower-left", "lower-right")}
POINTS = ("mixture", "checkerboard", "moons", "spiral")


def toy(
    kind: str = "shapes",
    *,
    split: str = "train",
    val: float = 0.0,
    test: float = HELD_OUT,
    n: int = 2000,
    size: int = 16,
    channels: int = 1,
    seed: int = 0,
) -> Dataset:
    """Make small labelled pictures: shapes of random position, size and grey, or a mixture of Gaussians.

    Arguments:
        kind: "shapes" (a bright disc, square, ring or cross), or "mixture": the quarter of the class is bright, and
            every pixel has noise of sd 0.1, so that no two classes are confused.
        split: "train", "val", "test" or "all".
        val: Share held out for validation, in [0, 1).
        test: Share held out for testing, in [0, 1).
        n: How many images before the split, >= 1.
        size: Side in pixels, >= 8.
        channels: 1, or 3 for random colours.
        seed: Seed of the pictures; another one makes another set.

    Returns:
        uint8 images (N, channels, size, size) of the classes disc, square, ring, cross; or of the four quarters.

    Raises:
        UnknownNameError: If there is no such kind.
        ValueError: If `n`, `size` or `channels` is out of range.

    >>> toy(n=50, split="all")
    Dataset('toy-shapes', all, 50 images 1x16x16, 4 classes)
    """
    if kind not in KINDS:
        raise UnknownNameError(nearest("toy", kind, KINDS))
    if n < 1 or size < 8 or channels not in (1, 3):
        raise ValueError(f"Toy shapes need n >= 1, size >= 8 and 1 or 3 channels; got {n}, {size}, {channels}.")
    labels = torch.arange(n) % len(KINDS[kind])
    draw = _mixture if kind == "mixture" else _shapes
    images = draw(labels, size, channels, seed)
    whole = Dataset.whole(f"toy-{kind}", images, labels, KINDS[kind])
    return split_by_hash(whole, split, val=val, test=test)


def _mixture(labels: Tensor, size: int, channels: int, seed: int) -> Tensor:
    """Return images of four Gaussians, uint8 (n, channels, size, size), of mean 0.7 in a quarter and 0.2 elsewhere."""
    half = torch.arange(size) >= size // 2
    quarter = 2 * half[:, None].long() + half
    mean = torch.where(quarter == labels[:, None, None], 0.7, 0.2)
    z = normal(torch.arange(len(labels)), (channels, size, size), seed=seed, purpose="toy mixture of images")
    return ((mean[:, None] + 0.1 * z).clamp(0, 1) * 255).round().to(torch.uint8)


def _shapes(labels: Tensor, size: int, channels: int, seed: int) -> Tensor:
    """Return images of shapes, uint8 (n, channels, size, size)."""
    n = len(labels)
    u = uniform(torch.arange(n), (3 + channels,), seed=seed, purpose="toy shapes")
    radius = (0.18 + 0.16 * u[:, 0]) * size
    centre = radius[:, None] + u[:, 1:3] * (size - 2 * radius[:, None])
    colour = 0.5 + 0.5 * u[:, 3:]
    axis = torch.arange(size, dtype=torch.float64) + 0.5
    dy = axis[None, :, None] - centre[:, 0, None, None]
    dx = axis[None, None, :] - centre[:, 1, None, None]
    r = radius[:, None, None]
    across, away = torch.maximum(dx.abs(), dy.abs()), torch.hypot(dx, dy)
    inside = torch.stack(  # signed distance to each outline, in pixels, positive inside
        (
            r - away,
            0.85 * r - across,
            0.3 * r - (away - 0.7 * r).abs(),
            torch.minimum(r - across, 0.3 * r - torch.minimum(dx.abs(), dy.abs())),
        )
    )
    cover = (inside[labels, torch.arange(n)] + 0.5).clamp(0, 1)  # one soft pixel at the edge
    return (cover[:, None] * colour[:, :, None, None] * 255).round().to(torch.uint8)


def points(kind: str, n: int, seed: int = 0) -> Tensor:
    """Draw points of a density on the plane.

    Arguments:
        kind: "mixture" (8 Gaussians of sd 0.1 on a circle of radius 1), "checkerboard" (the 8 even cells of a 4x4
            board on [-1, 1]^2), "moons" (two half circles with noise of sd 0.05) or "spiral" (one arm, noise 0.02).
        n: How many, >= 1.
        seed: The set's seed; point i depends on (seed, i) alone.

    Returns:
        float64 (n, 2).

    Raises:
        UnknownNameError: If there is no such kind.

    >>> points("moons", 3).shape
    torch.Size([3, 2])
    """
    if kind not in POINTS:
        raise UnknownNameError(nearest("point set", kind, POINTS))
    ids = torch.arange(n)
    u = uniform(ids, (3,), seed=seed, purpose=f"toy {kind}")
    z = normal(ids, (2,), seed=seed, purpose=f"toy {kind} noise", dtype=torch.float64)
    if kind == "mixture":
        angle = (u[:, 0] * 8).floor() * (math.pi / 4)
        return _polar(1.0, angle) + 0.1 * z
    if kind == "checkerboard":
        cell = (u[:, 0] * 8).floor()
        row = (cell / 2).floor()
        column = 2 * (cell % 2) + row % 2
        return torch.stack((column + u[:, 1], row + u[:, 2]), 1) / 2 - 1
    if kind == "moons":
        lower = u[:, 0] < 0.5
        arc = _polar(1.0, math.pi * u[:, 1])
        moved = torch.tensor([1.0, 0.5], dtype=torch.float64) - arc
        return torch.where(lower[:, None], moved, arc) + 0.05 * z
    turn = 3 * math.pi * u[:, 0].sqrt()  # the square root spreads points evenly along the arm
    return _polar(turn / (3 * math.pi), turn) + 0.02 * z


def _polar(radius: Tensor | float, angle: Tensor) -> Tensor:
    return torch.stack((radius * angle.cos(), radius * angle.sin()), 1)
