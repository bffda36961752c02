"""Reconstruction error: how far an image comes back from each level it is encoded to.

With the stochastic encoder and an ancestral sampler the decoded image is a draw from p(x0 | x_t), so for the exact
denoiser of a Gaussian of variance v the mean square error is twice the posterior variance,

    E (x0' - x0)^2 = 2 v sigma^2 / (alpha^2 v + sigma^2).

With a deterministic encoder it is discretisation error alone and falls with the number of steps.

References:
    Song, Meng, Ermon. Denoising Diffusion Implicit Models. 2021, section 5.4. https://arxiv.org/abs/2010.02502
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sfumato.core.images import to_float
from sfumato.core.level import Level
from sfumato.pictures._ask import drawn, sampled_by
from sfumato.report.latents import Encode, decode, encode_at, evenly
from sfumato.report.plot import Series, axes, finish, lines
from sfumato.runs.run import Run
from sfumato.samplers import ddim
from sfumato.sources import Diffusion


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
        run: A trained run.
        n: Number of images.
        levels: Noise levels.
        split: Part of the data that the real images are taken from: train, val or test.
        first: First seed of the noise.
        root: Folder of the datasets; None for SFUMATO_DATA or the cache.
        device: Torch device that computes.
    """
    data = drawn(run, split, n, root)
    labels = data.labels if run.classes else None
    seeds, found, words = range(first, first + n), {}, [f"{data.name} {split}."]
    ways = {"adding noise, ancestral": ("ancestral", None), "DDIM both ways": ("ddim", ddim.encode)}
    for name, (sampler, encode) in ways.items():
        by = sampled_by(run, sampler)
        source = by.diffusion(device=device)
        found[name] = reconstruct(source, data.images, seeds, evenly(source, levels), labels, encode)
        words.append(f"{name}: {by.making().sentence}")
    return drawing(found, title=run.title, caption=" ".join(words))


@dataclass(frozen=True, slots=True, eq=False)
class Reconstruction:
    """How far images come back from each level.

    Attributes:
        t: Steps from clean, shape (K,).
        levels: The noise levels, shape (K,).
        rmse: Root of the mean square error over pixels on 0..255, shape (K, B).
    """

    t: Tensor
    levels: Level
    rmse: Tensor


def reconstruct(
    source: Diffusion,
    images: Tensor,
    seeds: Sequence[int],
    at: Sequence[int] | None = None,
    labels: Tensor | None = None,
    encode: Encode | None = None,
) -> Reconstruction:
    """Encode images to every level, decode them and measure how far they are from themselves.

    Arguments:
        source: A diffusion model with its sampler and grid.
        images: Clean, uint8, shape (B, C, H, W).
        seeds: One seed per image.
        at: Grid indices; None for about twelve, from the noisiest to the clean one.
        labels: One class per image, int64 (B,), or None for no class.
        encode: A deterministic encoder; None for adding noise.

    Returns:
        The errors.
    """
    at = evenly(source, 12) if at is None else list(at)
    errors = []
    for k in at:
        x = encode_at(source, images.cpu(), k, seeds, labels, encode)
        back = decode(source, x, k, seeds, labels).clamp(-1, 1).cpu()
        errors.append(127.5 * (back - to_float(images.cpu())).double().square().flatten(1).mean(1).sqrt())
    steps = len(source.grid) - 1
    return Reconstruction(torch.tensor([steps - k for k in at]), source.grid[torch.tensor(at)], torch.stack(errors))


def drawing(results: Mapping[str, Reconstruction], *, title: str = "", caption: str = "") -> Figure:
    """Plot the reconstruction error against the level that images were encoded to.

    Arguments:
        results: Name of the encoder and sampler -> errors.
        title: Text above the plot.
        caption: Text below it.

    Returns:
        The figure: mean over images and its 95% interval.
    """
    series = {}
    for name, result in results.items():
        mean, count = result.rmse.mean(1), result.rmse.shape[1]
        half = 1.96 * result.rmse.std(1) / count**0.5 if count > 1 else torch.zeros_like(mean)
        series[name] = Series.of(result.t.tolist(), mean.tolist(), (mean - half).tolist(), (mean + half).tolist())
    figure, ax = axes("noise level t (steps from clean)", "RMSE on 0..255", title)
    lines(ax, series)
    ax.set_ylim(bottom=0)
    counts = sorted({result.rmse.shape[1] for result in results.values()})
    return finish(figure, f"Mean over {' and '.join(map(str, counts))} images, with its 95% interval. {caption}")
