"""Quality of the estimate x0-hat on the way from noise to the sample."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sfumato.core.images import to_uint8
from sfumato.evaluation import cached_features
from sfumato.metrics.features import extractor, features_of
from sfumato.metrics.frechet import frechet
from sfumato.pictures._ask import seeds_of
from sfumato.report import curves as draw
from sfumato.report.plot import Series
from sfumato.runs.resolve import load_data
from sfumato.runs.run import Run
from sfumato.sources import classes_named, in_turn


def progress(
    run: Run,
    *,
    n: int = 256,
    points: int = 10,
    first: int = 0,
    split: str = "test",
    root: Path | None = None,
    device: str = "cpu",
) -> Figure:
    """Progressive generation: FD of x0-hat and its distance from the final sample, against the steps done.

    Arguments:
        run: A trained run.
        n: Samples; the FD of few is noisy, its interval says how much.
        points: Number of steps shown.
        first: First seed, >= 0.
        split: Real images of the FD.
        root: Folder of the datasets; None for SFUMATO_DATA or the cache.
        device: Torch device that computes.

    References:
        Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, figure 10. https://arxiv.org/abs/2006.11239
    """
    source = run.diffusion(device=device)
    steps = len(source.grid) - 1
    at = sorted({round(steps * i / (points - 1)) for i in range(points)}) if points > 1 else [steps]
    seeds = seeds_of(n, first)
    labels = in_turn(seeds, classes_named(None, run.classes))
    shown: dict[int, list[Tensor]] = {k: [] for k in at}
    for start in range(0, n, source.batch):
        part = slice(start, start + source.batch)
        last = None
        for k, state in enumerate(source.states(seeds[part], None if labels is None else labels[part])):
            if k in shown:  # x0-hat of the step from k to k + 1 was made from x_k
                shown[k].append(to_uint8(state.x0.cpu()))
            last = state.x
        if last is None:
            raise ValueError("The sampler took no step.")
        shown[steps].append(to_uint8(last.cpu()))
    real = load_data(run.recipe, split, root)
    extract = extractor(run.recipe.evaluate.extractor, real.shape)
    reference = cached_features(extract, real)
    final = torch.cat(shown[steps]).double()
    taken = [k for k in at if shown[k]]
    quality, distance = [], []
    for k in taken:
        images = torch.cat(shown[k])
        quality.append(frechet(features_of(extract, images), reference))
        distance.append((images.double() - final).square().flatten(1).mean(1).sqrt())
    error = [float(d.std() / n**0.5) if n > 1 else 0.0 for d in distance]
    mean = [float(d.mean()) for d in distance]
    return draw.panels(
        {
            f"FD[{extract.name}] of x0-hat": Series.of(
                taken, [q.value for q in quality], [q.interval[0] for q in quality], [q.interval[1] for q in quality]
            ),
            "RMSE to the final sample (0..255)": Series.of(
                taken, mean, [m - 1.96 * e for m, e in zip(mean, error)], [m + 1.96 * e for m, e in zip(mean, error)]
            ),
        },
        xlabel=f"reverse steps done (of {steps})",
        title=run.title,
        caption=f"{n} samples against {len(real):,} {split} images; bands: 95%. {run.making().sentence}",
    )
