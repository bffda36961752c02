"""Latents as training data: images encoded once by a trained autoencoder, kept under their content.

    cache      means and ln variances of every training image (and of its mirror image where data.flip asks for it),
               in $XDG_CACHE_HOME/sfumato/latents under a hash of the images in their order and of the weights used
    z          (m + sqrt(v) n - shift) / scale, with n addressed by the sample's position: each visit is another draw
    shift      mean of each channel over images and places;  scale: its standard deviation, the posteriors' included

So sample p of a run on latents is a pure function of (seed, p), as that of any other run, and the latents have mean 0
and variance 1 in every channel: sigma_data = 1.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.images import to_float
from sfumato.core.noise import normal
from sfumato.data.dataset import Dataset
from sfumato.data.loader import Loader
from sfumato.data.streaming import Stream, loader_for
from sfumato.evaluation.cache import keep, place, whole
from sfumato.evaluation.real import order_of
from sfumato.latent.autoencoder import Autoencoder, Posterior
from sfumato.runs.recipe import Latent, Recipe, RecipeError
from sfumato.runs.run import Run

BATCH = 250  # images encoded at once: always the same, so that a latent does not depend on who asks


def with_encoder(recipe: Recipe, folder: Path) -> Recipe:
    """Return a recipe with the form of the latents that it asks for and the hash of what makes them.

    Arguments:
        recipe: Any; one that asks for no latents is returned as it is.
        folder: Directory of the run, beside which the autoencoder is looked for as well.

    Raises:
        RecipeError: If the autoencoder is not there, is another kind of run, or makes latents of another form.
    """
    if recipe.data.latent is None:
        return recipe if recipe.latent is None else replace(recipe, latent=None)
    run, use = Run(folder, recipe, {}).encoder_run()
    taken, group = run.taken(use)
    network, stated = run.autoencoder(use).network, recipe.latent
    found = Latent(int(network.latents), int(network.factor), weights=taken.digest(group))  # type: ignore[arg-type]
    if stated is not None and (stated.channels, stated.factor) != (found.channels, found.factor):
        raise RecipeError(
            f"{recipe.name} is for latents of {stated.channels} channels at 1/{stated.factor} of the side, and "
            f"data.latent={recipe.data.latent} makes {found.channels} at 1/{found.factor}. Name another run, or set "
            "latent=none to take its form."
        )
    return replace(recipe, latent=found if stated is None or not stated.weights else stated)


@dataclass(frozen=True, eq=False)
class Encoded:
    """Training images and the posteriors of their latents.

    Attributes:
        data: Training images, in their order.
        means: float32 (F, N, c, h, w); F = 2 if mirror images are there too.
        log_vars: ln variances, the same shape; None for an encoder without noise.
    """

    data: Dataset | Stream
    means: Tensor
    log_vars: Tensor | None

    def channels(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the variance of each channel of a latent, (c,), float64."""
        of_all = self.means.double().movedim(2, 0).flatten(1)
        spread = of_all.var(1, correction=0)
        if self.log_vars is not None:
            spread = spread + self.log_vars.double().exp().movedim(2, 0).flatten(1).mean(1)
        return of_all.mean(1), spread


def encoded(recipe: Recipe, data: Dataset | Stream, folder: Path, device: torch.device) -> Encoded:
    """Return training images with their posteriors, from the cache if they are there.

    Arguments:
        recipe: That is trained on latents, whose form it says (`with_encoder`).
        data: The training images.
        folder: Directory of the run.
        device: Where to encode.
    """
    assert recipe.latent is not None
    turns, latent = 2 if recipe.data.flip else 1, recipe.latent
    facts = [order_of(data), latent.weights, turns, BATCH]
    file = place("latents", facts).with_suffix(".npy")
    rows = whole(file)
    if rows is None or rows.shape[:2] != (turns, len(data)) or rows.shape[2] % latent.channels:
        run, use = Run(folder, recipe, {}).encoder_run()
        rows = _encode(run.autoencoder(use, device), data, turns, device)
        partial = file.with_suffix(f".{os.getpid()}.tmp")
        with open(partial, "wb") as out:
            np.save(out, rows)
        keep(partial, file, zlib.crc32(rows.tobytes()), facts)
    found, count = torch.from_numpy(np.array(rows)), latent.channels
    return Encoded(data, found[:, :, :count], found[:, :, count:] if found.shape[2] > count else None)


def standardised(recipe: Recipe, data: Encoded) -> Recipe:
    """Return a recipe with the shift and scale of its latents, estimated from the training images.

    Arguments:
        recipe: That is trained on latents; one that has both is returned as it is.
        data: The training images with their posteriors.

    Raises:
        RecipeError: If a channel is the same for every image.
    """
    assert recipe.latent is not None
    if recipe.latent.scale:
        return recipe
    mean, spread = data.channels()
    shift, scale = (tuple(round(v, 6) for v in values.tolist()) for values in (mean, spread.sqrt()))
    if not all(v > 0 for v in scale):
        raise RecipeError(
            f"data.latent={recipe.data.latent}: channel {int(spread.argmin())} of its latents is the same for every "
            "training image, so it cannot be scaled. Train the autoencoder longer, or with fewer network.latents."
        )
    return replace(recipe, latent=replace(recipe.latent, shift=shift, scale=scale))


@torch.no_grad()
def _encode(autoencoder: Autoencoder, data: Dataset | Stream, turns: int, device: torch.device) -> np.ndarray:
    """Return means and ln variances along the channels, float32 (turns, N, c or 2c, h, w)."""
    loader, parts = loader_for(data, 0, device), []
    for start in range(0, len(data), BATCH):
        chosen = torch.arange(start, min(len(data), start + BATCH))
        images = to_float(loader.codes(start, chosen).to(device))
        each = [autoencoder.encode(turned) for turned in (images, images.flip(-1))[:turns]]
        parts.append(torch.stack([_joined(posterior) for posterior in each]).cpu())
    return torch.cat(parts, 1).float().numpy()


def _joined(posterior: Posterior) -> Tensor:
    return posterior.mean if posterior.log_var is None else torch.cat((posterior.mean, posterior.log_var), 1)


class LatentLoader:
    """Serve batches of latents by position, as `data.loader.Loader` serves images.

    Arguments:
        loader: Serves the images: their order, labels and positions are taken over.
        recipe: With shift and scale of its latents.
        data: Posteriors of the images, in their order.
    """

    def __init__(self, loader: Loader, recipe: Recipe, data: Encoded) -> None:
        assert recipe.latent is not None
        self.loader, self.seed = loader, recipe.train.seed
        self.means = data.means.to(loader.device)
        self.log_vars = None if data.log_vars is None else data.log_vars.to(loader.device)
        self.shift, self.scale = (
            torch.tensor(each, device=loader.device).reshape(-1, 1, 1)
            for each in (recipe.latent.shift, recipe.latent.scale)
        )

    def batch(self, start: int, count: int) -> tuple[Tensor, Label | None, Tensor]:
        """Return the samples at positions start, ..., start + count - 1: latents, labels and positions."""
        _, label, positions = self.loader.batch(start, count)
        chosen = self.loader.order(torch.arange(start, start + count)).to(positions.device)
        mirrored = self.loader.mirrored(positions)
        turn = torch.zeros_like(chosen) if mirrored is None else mirrored.long()
        mean = self.means[turn, chosen]
        posterior = Posterior(mean, None if self.log_vars is None else self.log_vars[turn, chosen])
        n = normal(positions, mean.shape[1:], seed=self.seed, purpose="posterior", device=mean.device)
        return (posterior.sample(n) - self.shift) / self.scale, label, positions


def batches_of(recipe: Recipe, data: Dataset | Stream | Encoded, device: torch.device) -> Loader | LatentLoader:
    """Return what serves a run's training batches: images, or the latents of them.

    Arguments:
        recipe: The resolved recipe of the run.
        data: The training images.
        device: Where batches are.
    """
    images = data.data if isinstance(data, Encoded) else data
    loader = loader_for(images, recipe.train.seed, device, flip=recipe.data.flip, workers=recipe.data.workers)
    return LatentLoader(loader, recipe, data) if isinstance(data, Encoded) else loader
