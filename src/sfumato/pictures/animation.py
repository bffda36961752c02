"""The denoising as an animation."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image

from sfumato.pictures._ask import seeds_of
from sfumato.report.strip import gif
from sfumato.runs.run import Run
from sfumato.sources import class_names, classes_named, in_turn


def animation(
    run: Run,
    *,
    n: int = 16,
    first: int = 0,
    columns: int = 4,
    seconds: float = 4.0,
    classes: str = "",
    device: str = "cpu",
) -> Image.Image:
    """An animated GIF of the denoising: x at the left, x0-hat at the right.

    Arguments:
        run: A trained run.
        n: Number of images.
        first: First seed, >= 0.
        columns: Images in a row of either side.
        seconds: How long the walk takes.
        classes: Class names or numbers taken in turn; all if empty.
        device: Torch device that computes.
    """
    seeds = seeds_of(n, first)
    labels = in_turn(seeds, classes_named(classes, run.classes))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "walk.gif")
        gif(
            run.diffusion(device=device),
            seeds,
            labels,
            path,
            columns=columns,
            seconds=seconds,
            names=class_names(labels, run.classes),
            title=run.title,
            caption=run.making().sentence,
        )
        return Image.open(io.BytesIO(path.read_bytes()))
