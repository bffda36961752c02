"""The uncurated sheet: a row per class, as they came."""

from __future__ import annotations

import torch
from PIL.Image import Image

from sfumato.pictures._ask import MOST_ROWS, seeds_of
from sfumato.report import sheet as draw
from sfumato.runs.run import Run
from sfumato.sources import class_names, classes_named


def sheet(run: Run, *, each: int = 8, first: int = 0, classes: str = "", device: str = "cpu") -> Image:
    """Samples as they came, from seeds first, first + 1, ...; a row per class.

    Arguments:
        run: A trained run.
        each: Images of a class; of a run without classes eight times as many.
        first: First seed, >= 0.
        classes: Class names or numbers, separated by commas; all if empty.
        device: Torch device that computes.
    """
    picked = classes_named(classes, run.classes)
    rows = 8 if picked is None else min(len(picked), MOST_ROWS)
    seeds = seeds_of(each * rows, first)
    shown = None if picked is None else torch.tensor(picked[:rows])
    images = run.source(device=device)(seeds, None if shown is None else shown.repeat_interleave(each))
    names = class_names(shown, run.classes)
    return draw.sheet(images, each, row_labels=names, seeds=seeds, title=run.title, caption=run.making().sentence)
