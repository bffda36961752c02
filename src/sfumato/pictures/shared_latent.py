"""Several continuations of one latent: what is decided at which noise level."""

from __future__ import annotations

from pathlib import Path

from PIL.Image import Image

from sfumato.pictures._ask import drawn, made_by, sampled_by, seeds_of
from sfumato.report import shared_latent as draw
from sfumato.report._latents import evenly
from sfumato.runs.run import Run


def shared_latent(
    run: Run, *, image: int = 0, n: int = 8, first: int = 0, levels: int = 5, split: str = "test",
    sampler: str = "ancestral", root: Path | None = None, device: str = "cpu",
) -> Image:  # fmt: skip
    """A row per noise level: several samples that share their x_t and differ in the noise of later steps.

    Arguments:
        run: The run.
        image: Which image of a seeded draw the latents are made of.
        n: Continuations.
        first: First seed of their noise.
        levels: Rows, from the noisiest level to the clean one.
        split: Which real images.
        sampler: A stochastic one.
        root: Data root.
        device: Where to compute.
    """
    by = sampled_by(run, sampler)
    data = drawn(run, split, image + 1, root)
    source = by.diffusion(device=device)
    label = int(data.labels[image]) if data.labels is not None and run.classes else None
    return draw.shared_latent(
        source,
        data.images[image],
        seeds_of(n, first),
        evenly(source, max(2, levels)),
        label=label,
        title=run.recipe.name,
        caption=f"{split} image {image}. {made_by(by)}",
    )
