"""Interpolation in latent space, coarse to fine.

Two images are encoded to the same level with the same noise, mixed, and decoded with the same noise,

    x_t = x_t(a) + lambda m (x_t(b) - x_t(a)),    lambda in [0, 1], m a mask in [0, 1] (1 everywhere unless given)

so at lambda = 0 and 1 stand the reconstructions. A high level mixes layout, a low one pixels.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, figures 8 and 9. https://arxiv.org/abs/2006.11239
    Song, Meng, Ermon. Denoising Diffusion Implicit Models. 2021, section 5.3. https://arxiv.org/abs/2010.02502
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from sfumato.core.images import to_uint8
from sfumato.pictures._ask import drawn, sampled_by
from sfumato.report._canvas import Frame, draw
from sfumato.report.latents import Encode, decode, encode_at, evenly, named
from sfumato.runs.run import Run
from sfumato.samplers import ddim
from sfumato.sources import Diffusion

WEIGHTS = tuple(i / 10 for i in range(11))

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
) -> Image.Image:
    """Two images mixed at several noise levels, coarse to fine; at=0.5 shows one level, mask=left mixes a part only.

    Arguments:
        run: A trained run.
        a: Position of the image at the left, in a seeded draw.
        b: Position of the image at the right.
        levels: Noise levels, a row each, >= 2.
        at: One row only, at this share of the grid: 0 clean, 1 the noisiest.
        points: Columns between the two images, their reconstructions included.
        mask: Where to mix: none for everywhere, left, right, top, bottom or centre.
        how: noise adds the same noise to both; ddim encodes and decodes deterministically.
        split: Part of the data that the real images are taken from: train, val or test.
        seed: Seed of the shared noise.
        root: Folder of the datasets; None for SFUMATO_DATA or the cache.
        device: Torch device that computes.
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
    masked = f"mask {mask}; " if mask != "none" else ""
    return drawing(
        source,
        data.images[a],
        data.images[b],
        rows,
        [round(w, 3) for w in weights],
        mask=mask_of(mask, height, width),
        encode=encode,
        seed=seed,
        title=run.title,
        caption=f"{split.capitalize()} images {a} and {b}; {masked}{by.making().sentence}",
    )


def drawing(
    source: Diffusion,
    a: Tensor,
    b: Tensor,
    at: Sequence[int] | None = None,
    weights: Sequence[float] = WEIGHTS,
    *,
    mask: Tensor | None = None,
    encode: Encode | None = None,
    seed: int = 0,
    title: str = "",
    caption: str = "",
) -> Image.Image:
    """Interpolate two images in latent space: a row for one noise level, a coarse-to-fine grid for several.

    Arguments:
        source: A diffusion model with its sampler and grid.
        a: Image at the left, uint8, shape (C, H, W).
        b: Image at the right, the same shape.
        at: Grid indices, one per row; None for five, from the noisiest to the clean one.
        weights: lambda of each column; 0 and 1 are reconstructions of a and b.
        mask: Where to interpolate, in [0, 1], shape (H, W); None for everywhere.
        encode: A deterministic encoder; None for adding the same noise to both.
        seed: Seed of the shared noise.
        title: Text above the grid.
        caption: Text that follows the statement on seed and levels.

    Returns:
        RGB picture: a, the interpolations, b in every row.

    Raises:
        ValueError: If the images or the mask differ in shape or the mask leaves [0, 1].
    """
    if a.shape != b.shape or (mask is not None and mask.shape != a.shape[1:]):
        raise ValueError(
            f"Two images of one shape and a mask of their height and width are interpolated; got {tuple(a.shape)}, "
            f"{tuple(b.shape)} and {None if mask is None else tuple(mask.shape)}."
        )
    if mask is not None and not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ValueError(f"A mask lies in [0, 1]; got {float(mask.min()):g} to {float(mask.max()):g}.")
    at = evenly(source, 5) if at is None else list(at)
    lam = torch.tensor(list(weights), dtype=torch.float32, device=source.device).reshape(-1, 1, 1, 1)
    share = lam if mask is None else lam * mask.to(lam)
    pair, count = torch.stack((a, b)).cpu(), len(lam)
    cells = []
    for k in at:
        xa, xb = encode_at(source, pair, k, [seed, seed], None, encode)
        decoded = decode(source, torch.lerp(xa.expand(count, -1, -1, -1), xb, share), k, [seed] * count)
        cells += [pair[:1], to_uint8(decoded.cpu()), pair[1:]]
    how = f"noise of seed {seed} for both images" if encode is None else "deterministic encoder"
    mixed = "x_t(a) + λ (x_t(b) - x_t(a))" if mask is None else "x_t(a) + λ m (x_t(b) - x_t(a)), m the mask"
    ends = "λ = 0 and 1 are the reconstructions" if mask is None else "λ = 0 is the reconstruction of a"
    frame = Frame(
        title=title,
        rows=named(source, at),
        columns=["a", *(f"λ = {w:g}" for w in weights), "b"],
        caption=f"{mixed}, decoded; {how}; t counts steps from clean; {ends}. {caption}".strip(),
    )
    return draw(torch.cat(cells), count + 2, frame)[0]
