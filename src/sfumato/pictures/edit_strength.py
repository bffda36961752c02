"""Edits against their strength: how far from the picture, in pixels and in features.

SDEdit of strength s keeps what is coarser than the noise it starts from. Pixels move first, what a picture shows moves
last: the distance in the features of an extractor, in units of the distance between two different real images, says at
which strength a picture stops being itself.

References:
    Meng et al. SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations. 2022, figure 3.
    https://arxiv.org/abs/2108.01073
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from sfumato.core.images import to_float, to_uint8
from sfumato.editing import edit
from sfumato.metrics.features import extractor, features_of
from sfumato.metrics.fidelity import with_interval
from sfumato.pictures._ask import drawn, seeds_of
from sfumato.report.plot import Series, axes, finish, lines
from sfumato.runs.run import Run
from sfumato.sources import class_named


def edit_strength(
    run: Run,
    *,
    n: int = 64,
    points: int = 9,
    to: str = "",
    first: int = 0,
    split: str = "test",
    root: Path | None = None,
    device: str = "cpu",
) -> Figure:
    """The distance of edits to their pictures against the strength, in pixels and in features.

    Arguments:
        run: A trained run.
        n: Number of real images that are edited.
        points: Strengths from 0 to 1, at least 2.
        to: Name of the class that all become; each image's own if empty.
        first: First seed of the noise.
        split: Part of the data that the real images are taken from: train, val or test.
        root: Folder of the datasets; None for SFUMATO_DATA or the cache.
        device: Torch device that computes.
    """
    if n < 2 or points < 2:
        raise ValueError(f"This picture needs n >= 2 images and points >= 2; got {n} and {points}.")
    data, source = drawn(run, split, n, root), run.diffusion(device=device)
    labels = data.labels if run.classes else None
    if to:
        label = class_named(to, run.classes)
        labels = None if label is None else torch.full((n,), label)
    extract = extractor(run.recipe.evaluate.extractor, data.shape)
    own = features_of(extract, data.images)
    apart = float(np.linalg.norm(own - np.roll(own, 1, 0), axis=1).mean())  # of two different real images
    clean, strengths = to_float(data.images), torch.linspace(0, 1, points).tolist()
    pixels, features = [], []
    for strength in strengths:
        made = to_uint8(edit(source, clean, strength, seeds=seeds_of(n, first), labels=labels).cpu())
        pixels.append(with_interval(255 / 2 * (to_float(made) - clean).square().flatten(1).mean(1).sqrt().numpy()))
        features.append(with_interval(np.linalg.norm(features_of(extract, made) - own, axis=1) / apart))
    figure, ax = axes("strength", "distance to the picture", run.title)
    named = {
        "pixels: RMSE / 100 grey levels": np.array(pixels) / 100,
        f"features of {extract.name}": np.array(features),
    }
    lines(ax, {name: Series.of(strengths, *rows.T.tolist()) for name, rows in named.items()})
    ax.set_ylim(bottom=0)
    words = f"as {to}" if to else "in their own class" if labels is not None else "without a class"
    return finish(
        figure,
        f"{n} images of {data.name} {split}, edited {words}; means with 95% intervals. 1 in features is the "
        f"mean distance between two of these images. {run.making().sentence}",
    )
