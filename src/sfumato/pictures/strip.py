"""The denoising strip: x, the estimates x0-hat, or both, step by step."""

from __future__ import annotations

from typing import Literal

from PIL.Image import Image

from sfumato.pictures._ask import seeds_of
from sfumato.report import strip as draw
from sfumato.runs.run import Run
from sfumato.sources import class_names, classes_named, in_turn


def strip(
    run: Run,
    *,
    n: int = 4,
    first: int = 0,
    what: Literal["x", "x0", "both"] = "both",
    every: int | None = None,
    classes: str = "",
    device: str = "cpu",
) -> Image:
    """How images rise from noise: what=x the noisy image, what=x0 the estimate x0-hat, both unless given.

    Arguments:
        run: A trained run.
        n: Images, a row or two each.
        first: First seed, >= 0.
        what: x, x0 or both.
        every: Steps between columns; at most 20 columns unless given.
        classes: Class names or numbers taken in turn; all if empty.
        device: Torch device that computes.
    """
    seeds = seeds_of(n, first)
    labels = in_turn(seeds, classes_named(classes, run.classes))
    source = run.diffusion(device=device)
    return draw.strip(
        source,
        seeds,
        labels,
        every,
        what,
        row_labels=class_names(labels, run.classes),
        title=run.title,
        caption=run.making().sentence,
    )
