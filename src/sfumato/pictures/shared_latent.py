"""The shared-latent sheet: what is decided at which noise level.

Several continuations of one latent x_t differ in the noise of their later steps only. What they share was decided
above level t; at high t that is the coarse layout, at low t everything.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, figure 7. https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sfumato.core.images import to_uint8
from sfumato.pictures._ask import drawn, sampled_by, seeds_of
from sfumato.report._canvas import Frame, draw
from sfumato.report.latents import decode, encode_at, evenly, named
from sfumato.report.sheet import name_seeds
from sfumato.report.strip import on_circle
from sfumato.runs.run import Run
from sfumato.sources import Diffusion

LATENT = 0  # seed of the noise of the latents


def shared_latent(
    run: Run,
    *,
    image: int = 0,
    n: int = 8,
    first: int = 0,
    levels: int = 5,
    split: str = "test",
    sampler: str = "ancestral",
    root: Path | None = None,
    device: str = "cpu",
) -> Image.Image:
    """A row per noise level: several samples that share their x_t and differ in the noise of later steps.

    Arguments:
        run: A trained run.
        image: Which image of a seeded draw the latents are made of.
        n: Number of continuations.
        first: First seed of their noise.
        levels: Rows, from the noisiest level to the clean one.
        split: Part of the data that the real images are taken from: train, val or test.
        sampler: A stochastic one.
        root: Folder of the datasets; None for SFUMATO_DATA or the cache.
        device: Torch device that computes.
    """
    by = sampled_by(run, sampler)
    data = drawn(run, split, image + 1, root)
    source = by.diffusion(device=device)
    label = int(data.labels[image]) if data.labels is not None and run.classes else None
    return drawing(
        source,
        data.images[image],
        seeds_of(n, first),
        evenly(source, max(2, levels)),
        label=label,
        title=run.title,
        caption=f"{split.capitalize()} image {image}. {by.making().sentence}",
    )


def drawing(
    source: Diffusion,
    image: Tensor,
    seeds: Sequence[int],
    at: Sequence[int] | None = None,
    *,
    label: int | None = None,
    title: str = "",
    caption: str = "",
) -> Image.Image:
    """Show several continuations of one latent, row by noise level.

    Arguments:
        source: A model with a stochastic sampler (a deterministic one repeats one image per row).
        image: The image whose latents are shared, uint8, shape (C, H, W).
        seeds: One seed per continuation.
        at: Grid indices; None for five, from the noisiest to the clean one.
        label: Class of all continuations; None for no class.
        title: Text above the sheet.
        caption: Text that follows the statement on the seeds.

    Returns:
        RGB picture: the latent x_t at the left, the continuations beside it.
    """
    at = evenly(source, 5) if at is None else list(at)
    count = len(seeds)
    labels = None if label is None else torch.full((count,), label)
    cells = []
    for k in at:
        one = encode_at(source, image.unsqueeze(0), k, [LATENT], None if labels is None else labels[:1])
        x = one.expand(count, -1, -1, -1).contiguous()
        samples = decode(source, x, k, seeds, labels)
        cells += [on_circle(source.space.picture(one, source.grid[k]), source.grid[k]), to_uint8(samples.cpu())]
    words = f"Each row continues one latent x_t (left; noise of seed {LATENT}) with {name_seeds(seeds)}."
    frame = Frame(
        title=title,
        rows=named(source, at),
        columns=["x_t", *(f"seed {s}" for s in seeds)],
        caption=f"{words} t counts steps from clean. {caption}".strip(),
    )
    return draw(torch.cat(cells), 1 + count, frame)[0]
