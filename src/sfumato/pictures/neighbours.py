"""Samples beside their nearest training images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL.Image import Image

from sfumato.evaluation import cached_features
from sfumato.metrics.features import extractor, features_of
from sfumato.metrics.neighbours import nearest
from sfumato.pictures._ask import seeds_of
from sfumato.report import neighbours as draw
from sfumato.runs.resolve import load_data
from sfumato.runs.run import Run
from sfumato.sources import class_names, classes_named, in_turn


def neighbours(
    run: Run,
    *,
    n: int = 8,
    first: int = 0,
    k: int = 5,
    space: Literal["pixel", "features"] = "pixel",
    classes: str = "",
    root: Path | None = None,
    device: str = "cpu",
) -> Image:
    """Samples beside their nearest training images, by pixels or by the features that score the run.

    Arguments:
        run: A trained run.
        n: Samples, as they came.
        first: First seed, >= 0.
        k: Neighbours of each.
        space: pixel, or features for the recipe's own extractor.
        classes: Class names or numbers taken in turn; all if empty.
        root: Folder of the datasets; None for SFUMATO_DATA or the cache.
        device: Torch device that computes.
    """
    data = load_data(run.recipe, "train", root)
    if not 1 <= k <= len(data):
        raise ValueError(f"The training set has {len(data)} images; got k = {k}.")
    seeds = seeds_of(n, first)
    labels = in_turn(seeds, classes_named(classes, run.classes))
    made = run.source(device=device)(seeds, labels)
    name = "pixel"
    if space == "features":
        extract = extractor(run.recipe.evaluate.extractor, data.shape)
        name = extract.name
        ours, theirs = features_of(extract, made), cached_features(extract, data)
    else:
        ours, theirs = (x.flatten(1).numpy().astype(np.float32) / 255 for x in (made, data.images))
    square, index = nearest(ours, theirs, k)
    places = torch.from_numpy(index)
    return draw.neighbours(
        made,
        data.images[places],
        torch.from_numpy(np.sqrt(square)),
        places,
        seeds=seeds,
        row_labels=class_names(labels, run.classes),
        space=name,
        title=run.title,
        caption=f"{len(data):,} training images. {run.making().sentence}",
    )
