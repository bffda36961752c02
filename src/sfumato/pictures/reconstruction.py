"""How far images come back from each noise level they are encoded to."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from sfumato.pictures._ask import drawn, sampled_by
from sfumato.report import reconstruction as draw
from sfumato.report._latents import evenly
from sfumato.runs.run import Run
from sfumato.samplers import ddim


def reconstruction(
    run: Run,
    *,
    n: int = 32,
    levels: int = 9,
    split: str = "test",
    first: int = 0,
    root: Path | None = None,
    device: str = "cpu",
) -> Figure:
    """Reconstruction error against t: encoded by adding noise (decoded by ancestral steps), and by DDIM both ways.

    Arguments:
        run: The run.
        n: Images.
        levels: Noise levels.
        split: Which real images.
        first: First seed of the noise.
        root: Data root.
        device: Where to compute.
    """
    data = drawn(run, split, n, root)
    labels = data.labels if run.classes else None
    seeds, found = range(first, first + n), {}
    ways = {"adding noise, ancestral": ("ancestral", None), "DDIM both ways": ("ddim", ddim.encode)}
    for name, (sampler, encode) in ways.items():
        source = sampled_by(run, sampler).diffusion(device=device)
        found[name] = draw.reconstruct(source, data.images, seeds, evenly(source, levels), labels, encode)
    grid = run.recipe.sample.grid
    return draw.reconstruction_error(found, title=run.recipe.name, caption=f"{data.name} {split}, on {grid}.")
