"""How well an autoencoder codes images that it has not seen: PSNR, rate, bound, and the distance of reconstructions.

    PSNR              of images decoded from the means of their posteriors
    rate              KL(q(z | x) || N(0, I)), in nats an image and in bits a number: what a latent would cost to send
    bits/dim[VAE]     rate + -log2 P(x | z): the bound on the pixels' codes with N(0, I) as the prior of z
    FD                of reconstructions against the training images; its floor is the distance of their originals

An encoder without noise has a PSNR and a distance, and neither rate nor bound.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.core.images import to_float, to_uint8
from sfumato.core.noise import normal
from sfumato.data.dataset import Dataset
from sfumato.evaluation.judge import measured_on
from sfumato.evaluation.restored import METRIC, Figure, judge_of
from sfumato.evaluation.result import Result, facts_of_split
from sfumato.latent.autoencoder import Autoencoder
from sfumato.likelihood.gaussian import discretised
from sfumato.metrics.fidelity import psnr
from sfumato.metrics.score import Score
from sfumato.progress import bar_of
from sfumato.runs.run import Run

MOST = 10_000  # training images that a distance is taken to where they are a stream


def evaluate_autoencoder(
    run: Run,
    *,
    split: str = "test",
    m: int | None = None,
    use: str | None = None,
    root: Path | str | None = None,
    device: torch.device | str = "cpu",
    quiet: bool = False,
) -> Result:
    """Measure what an autoencoder loses and what its latents cost, and write it to RUN/results/.

    Arguments:
        run: A run with an autoencoder of its own.
        split: Part of the data: "test", "val" or "train".
        m: How many of them; None for all.
        use: Name of an average of the weights; None for the recipe's choice.
        root: Data root.
        device: Where to compute.
        quiet: Whether to show no progress bar.

    Returns:
        The table "reconstruction", and the distance with its floor if there are enough images.

    Raises:
        RecipeError: If the run has no autoencoder.
        LeakageError: If the split is called held out and was trained on.
    """
    data, training, notes = measured_on(run.recipe, split, m, root)
    known = training if isinstance(training, Dataset) else training.take(min(len(training), MOST), seed=0)
    autoencoder, batch = run.autoencoder(use, device), run.recipe.sample.batch
    parts = [
        coded(autoencoder, data.images[start : start + batch].to(device), start)
        for start in bar_of(None, "batch", "coding", iterable=range(0, len(data), batch), leave=False, quiet=quiet)
    ]
    found = {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}
    rebuilt, numbers = found.pop("images"), data.images[0].numel()
    row: dict[str, Any] = {"split": split, "m": len(data)}
    figures = {"PSNR in dB": Figure.of(psnr(rebuilt, to_float(data.images)))}
    figures |= {name: Figure.of(values.double().numpy()) for name, values in found.items()}
    if "nats an image" in figures:
        figures["bits a number"] = Figure.of(found["nats an image"].double().numpy() / (math.log(2) * numbers))
    row |= {name: {"value": f.value, "interval": [f.low, f.high]} for name, f in figures.items()}
    row |= {"decoder's sd (0..255)": round(127.5 * float(autoencoder.log_scale.exp()), 2)}
    refused: dict[str, str] = {}
    scores: tuple[Score, ...] = ()
    try:
        judge = judge_of(run.recipe, known, data)
        scores = (judge.score(METRIC, judge.seen(to_uint8(rebuilt), (METRIC,))),)
    except ValueError as error:
        refused[METRIC] = str(error)
    facts = facts_of_split(run, use, data, notes, device)
    name = f"reconstruction-{split}-m{len(data)}"
    return Result.written(run, scores, facts, name, tables={"reconstruction": [row]}, refused=refused)


@torch.no_grad()
def coded(autoencoder: Autoencoder, images: Tensor, first: int = 0) -> dict[str, Tensor]:
    """Return images decoded from their latents' means, and what each costs under N(0, I) if it has a posterior.

    Arguments:
        autoencoder: On the images' device.
        images: uint8 (B, C, H, W).
        first: Number of the first image, which addresses the noise of its latent.

    Returns:
        "images", float (B, C, H, W); "nats an image" and "bits/dim[VAE]", shape (B,), for an encoder with noise.
    """
    x0 = to_float(images)
    posterior = autoencoder.encode(x0)
    found = {"images": autoencoder.decode(posterior.mean)}
    if posterior.log_var is None:
        return found
    n = normal(range(first, first + len(x0)), posterior.mean.shape[1:], purpose="reconstruction", device=x0.device)
    pixels = pixel_nats(autoencoder, x0, posterior.sample(n))
    rate = posterior.kl()
    return found | {"nats an image": rate, "bits/dim[VAE]": (rate + pixels) / (math.log(2) * x0[0].numel())}


def pixel_nats(autoencoder: Autoencoder, x0: Tensor, z: Tensor) -> Tensor:
    """Return -ln P(x | z) of the pixels' codes under the decoder's discretised Gaussian, shape (B,).

    Arguments:
        autoencoder: Decodes.
        x0: Images on the 256 codes in [-1, 1], (B, C, H, W).
        z: Latents, (B, c, h, w).
    """
    return -discretised(x0, autoencoder.decode(z), 2 * autoencoder.log_scale.to(x0)).flatten(1).sum(1)
