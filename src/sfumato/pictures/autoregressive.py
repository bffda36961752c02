"""Generating block by block: every block of pixels is inpainted given those before it.

By the chain rule p(x) = p(x_1) p(x_2 | x_1) ... for any split of the pixels into blocks, and a diffusion model with a
method of restoration draws from each factor: see what is made, hide the rest, restore, keep one block. If the method
drew from the exact posterior, the result would be distributed as a plain sample. What it costs is a walk a block, and
where it looks worse the method is not exact.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, section 4.3. https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from sfumato.core.images import to_uint8
from sfumato.pictures._ask import seeds_of
from sfumato.report.sheet import sheet
from sfumato.restoration import method_of, restore
from sfumato.runs.run import Run
from sfumato.sources import Diffusion, class_names, classes_named, in_turn
from sfumato.tasks.inpaint import inpaint

MOST = 16  # columns of the picture
STREAM = 40  # the block's number stands above this bit of a seed


def autoregressive(
    run: Run, *, n: int = 6, block: int = 4, method: str = "moment", first: int = 0, device: str = "cpu"
) -> Image.Image:
    """A row per seed: an image made block by block by repeated inpainting, beside a plain sample.

    Arguments:
        run: A trained run.
        n: Number of images.
        block: Height and width of a block in pixels; the blocks are made row by row.
        method: Method of restoration that draws a block given those before; see `sfumato list method`.
        first: First seed.
        device: Torch device that computes.
    """
    (source, networks), seeds = run.counted_walk(device=device), seeds_of(n, first)
    height, width = source.shape[1:]
    if not 0 < block < max(height, width):
        raise ValueError(f"A block is smaller than the image of {height}x{width} pixels; got {block}.")
    labels = in_turn(seeds, classes_named(None, run.classes))
    steps, calls, products = block_by_block(source, seeds, labels, block, method, run.plan.sigma_data, networks)
    shown = [round(i * (len(steps) - 1) / (MOST - 1)) for i in range(MOST)] if len(steps) > MOST else range(len(steps))
    plain = to_uint8(source.floats(seeds, labels).cpu())
    images = torch.stack([plain, *(to_uint8(steps[i]) for i in shown)], 1).flatten(0, 1)
    columns = ["plain", *(f"{i + 1}" for i in shown)]
    names = class_names(labels, run.classes)
    return sheet(
        images,
        len(columns),
        row_labels=names or [f"seed {seed}" for seed in seeds],
        column_labels=columns,
        title=f"{run.title}, {block}x{block} pixels at a time",
        caption=f"{len(steps)} blocks, each inpainted given those before by {method}: {calls:g} calls and {products} "
        f"products an image, a plain sample (left) takes {calls / len(steps):g} calls. {run.making().sentence}",
    )


def block_by_block(
    source: Diffusion,
    seeds: list[int],
    labels: Tensor | None,
    block: int,
    method: str,
    sigma_data: float,
    asked: Callable[[], tuple[int, ...]] | None = None,
) -> tuple[list[Tensor], float, int]:
    """Make images block by block.

    Arguments:
        source: A model with its sampler and grid.
        seeds: One seed per image.
        labels: One class per image, int64 (B,), or None for no class.
        block: Height and width of a block in pixels.
        method: Name of the method of restoration.
        sigma_data: Standard deviation of clean pixels.
        asked: See `restoration.restore`.

    Returns:
        The canvas after each block, float (B, C, H, W) with 0 where nothing is made yet, and the calls and the
        vector-Jacobian products per image.
    """
    height, width = source.shape[1:]
    canvas, hidden = torch.zeros(len(seeds), *source.shape), torch.ones(height, width, dtype=torch.bool)
    steps: list[Tensor] = []
    calls, products, bound = 0.0, 0, method_of(method)
    for top in range(0, height, block):
        for left in range(0, width, block):
            task = inpaint(source.shape, mask=hidden.clone())
            own = [seed + (len(steps) << STREAM) for seed in seeds]
            found = restore(
                source,
                task,
                task.apply(canvas),
                bound,
                samples=1,
                seeds=own,
                labels=labels,
                sigma_data=sigma_data,
                asked=asked,
            )
            here = (slice(None), slice(None), slice(top, top + block), slice(left, left + block))
            canvas = canvas.clone()
            canvas[here] = found.samples[:, 0][here].clamp(-1, 1)
            hidden[top : top + block, left : left + block] = False
            steps.append(canvas)
            calls += found.nfe
            products += found.vjps
    return steps, calls, products
