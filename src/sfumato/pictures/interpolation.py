"""Interpolation in latent space: one row, the coarse-to-fine grid, or a part of the picture only."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from PIL.Image import Image
from torch import Tensor

from sfumato.pictures._ask import drawn, made_by, sampled_by
from sfumato.report import interpolation as draw
from sfumato.report._latents import Encode, evenly
from sfumato.runs.run import Run
from sfumato.samplers import ddim

Mask = Literal["none", "left", "right", "top", "bottom", "centre"]


def mask_of(name: str, height: int, width: int) -> Tensor | None:
    """Return where a mask of a name is 1, float (H, W); None for "none"."""
    mask = torch.zeros(height, width)
    half, quarter = (height // 2, width // 2), (height // 4, width // 4)
    where = {
        "left": (slice(None), slice(None, half[1])),
        "right": (slice(None), slice(half[1], None)),
        "top": (slice(None, half[0]), slice(None)),
        "bottom": (slice(half[0], None), slice(None)),
        "centre": (slice(quarter[0], height - quarter[0]), slice(quarter[1], width - quarter[1])),
    }
    if name == "none":
        return None
    mask[where[name]] = 1
    return mask


def interpolation(
    run: Run,
    *,
    a: int = 0,
    b: int = 1,
    levels: int = 5,
    at: float | None = None,
    points: int = 9,
    mask: Mask = "none",
    how: Literal["noise", "ddim"] = "noise",
    split: str = "test",
    seed: int = 0,
    root: Path | None = None,
    device: str = "cpu",
) -> Image:
    """Two images mixed at several noise levels, coarse to fine; at=0.5 shows one level, mask=left mixes a part only.

    Arguments:
        run: The run.
        a: Position of the image at the left, in a seeded draw.
        b: Of the one at the right.
        levels: Rows.
        at: One row only, at this share of the grid: 0 clean, 1 the noisiest.
        points: Columns between the two images, their reconstructions included.
        mask: Where to mix: none for everywhere, left, right, top, bottom or centre.
        how: noise adds the same noise to both; ddim encodes and decodes deterministically.
        split: Which real images.
        seed: Of the shared noise.
        root: Data root.
        device: Where to compute.
    """
    if min(a, b) < 0 or a == b or points < 2 or levels < 2 or (at is not None and not 0 <= at <= 1):
        raise ValueError(
            f"An interpolation has two different images, points >= 2, levels >= 2 and at in [0, 1]; got a = {a}, "
            f"b = {b}, points = {points}, levels = {levels}, at = {at}."
        )
    by = sampled_by(run, "ddim" if how == "ddim" else "ancestral")
    encode: Encode | None = ddim.encode if how == "ddim" else None
    data, source = drawn(run, split, max(a, b) + 1, root), by.diffusion(device=device)
    rows = evenly(source, levels) if at is None else [round((len(source.grid) - 1) * (1 - at))]
    height, width = data.images.shape[2:]
    weights = [i / (points - 1) for i in range(points)]
    return draw.interpolation(
        source,
        data.images[a],
        data.images[b],
        rows,
        [round(w, 3) for w in weights],
        mask=mask_of(mask, height, width),
        encode=encode,
        seed=seed,
        title=run.recipe.name,
        caption=f"{split} images {a} and {b}; {f'mask {mask}; ' if mask != 'none' else ''}{made_by(by)}",
    )
