"""What a probe looks at: images with their classes, and a trained network that is shown them at a noise level."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sfumato.core import noise
from sfumato.core.errors import nearest
from sfumato.core.images import to_float
from sfumato.core.level import Level
from sfumato.data.dataset import DataError, Dataset
from sfumato.evaluation.accuracy import known_levels, levels_at
from sfumato.evaluation.real import reference_of
from sfumato.metrics.linear_probe import ProbeError
from sfumato.metrics.rules import check_leakage
from sfumato.networks._pooled import all_blocks, pooled, usual_blocks
from sfumato.progress import Bar
from sfumato.runs.resolve import load_data, training_data
from sfumato.runs.run import Run

NSR = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # levels by default, where the run was trained on them
INPUT = "noisy input"  # of the network, pixels or latents; a row beside its blocks
TRAINING, HELD = 5_000, 2_000  # images by default


@dataclass(frozen=True)
class Images:
    """The images of a probe: clean, with their classes.

    Attributes:
        train: Training images.
        held: Held-out images.
        notes: Flags of the result.
    """

    train: Dataset
    held: Dataset
    notes: tuple[str, ...]

    @classmethod
    def of(cls, run: Run, split: str, n: int | None, m: int | None, root: Path | str | None) -> Images:
        """Return the images of a run's data, with the classes of the data even if the model was not told them.

        Arguments:
            run: A trained run.
            split: Part of the data that is held out.
            n: Training images; None for all, and at most `TRAINING`.
            m: Held-out images; None for all, and at most `HELD`.
            root: Data root.

        Raises:
            ProbeError: If the data has no classes, or fewer images.
            LeakageError: If the split is called held out and was trained on.
        """
        recipe = replace(run.recipe, data=replace(run.recipe.data, labels=True), learned="")
        try:
            whole, held = training_data(recipe, root), load_data(recipe, split, root)
        except DataError as error:
            raise ProbeError(f"A probe asks which class an image is of, and here that is not known. {error}") from error
        if whole.labels is None or held.labels is None:
            raise ProbeError(
                f"A probe asks which class an image is of, and {whole.name} has no labels. Probe a run on data with "
                "classes."
            )
        for count, data, flag in ((n, whole, "--n"), (m, held, "--m")):
            if count is not None and not 2 <= count <= len(data):
                raise ProbeError(
                    f"{flag} must lie in [2, {len(data)}], the images of {data.name} {data.split}; got {count}."
                )
        notes = check_leakage(reference_of(held), held.image_hashes, whole.image_hashes)
        train = whole.take(n or min(len(whole), TRAINING), seed=0)
        return cls(train, held.take(m or min(len(held), HELD), seed=0), notes)


@dataclass(frozen=True, eq=False)
class Look:
    """A network that looks at noisy images without being told their class.

    Attributes:
        run: A trained run.
        model: What the run trained, computing in float32.
        network: The network that is probed.
        device: Where it computes.
        batch: Images per pass; it does not change the features beyond rounding.
        encode: Float images -> what the network is shown: themselves, or latents where it was trained on those.
    """

    run: Run
    model: nn.Module
    network: nn.Module
    device: torch.device
    batch: int
    encode: Callable[[torch.Tensor], torch.Tensor] = lambda images: images

    @classmethod
    def of(cls, run: Run, use: str | None, device: torch.device, batch: int | None = None) -> Look:
        """Return the look of a trained run.

        Arguments:
            run: A trained run.
            use: Which average of the weights; None for the recipe's choice.
            device: Where to compute.
            batch: Images per pass, >= 1; None for the recipe's choice.

        Raises:
            ProbeError: For an empty batch.
        """
        if batch is not None and batch < 1:
            raise ProbeError(f"A batch is of at least 1 image; got {batch}.")
        exact = run.with_recipe(replace(run.recipe, train=replace(run.recipe.train, precision="fp32")))
        network = exact.network(use)
        model, kind = exact.plan.model(network).to(device), exact.plan.kind
        look = cls(exact, model, kind.probed(network), device, run.recipe.sample.batch if batch is None else batch)
        return replace(look, encode=exact.space(use, device, network).encode) if exact.plan.in_latents else look

    def noisy(self, data: Dataset, level: Level, start: int, count: int) -> torch.Tensor:
        """Return images of a dataset at a level, (count, C, H, W); the noise is addressed by image.

        Arguments:
            data: Clean images.
            level: Level of shape ().
            start: Position of the first image.
            count: Number of images.
        """
        with torch.no_grad():
            x0 = self.encode(to_float(data.images[start : start + count]).to(self.device))
        ids, purpose = torch.arange(start, start + count), f"probe {data.split}"
        n = noise.normal(ids, x0.shape[1:], purpose=purpose, device=self.device, dtype=x0.dtype)
        return level.noisy(x0, n)

    def blocks(self, data: Dataset, asked: Sequence[str]) -> list[str]:
        """Return the blocks to probe, in the order of their calls.

        Arguments:
            data: Any images of the run.
            asked: Paths of blocks; () for the usual ones.

        Raises:
            ProbeError: For a path that is no block of the network; the nearest is offered.
        """
        level = self.levels(())[-1]
        known = all_blocks(self.network, self._looking(self.noisy(data, level, 0, 2), level), 2)
        for name in asked:
            if name not in known:
                raise ProbeError(nearest(f"block of {self.run.recipe.network.name}", name, known))
        return [name for name in known if name in asked] if asked else usual_blocks(self.network, known)

    def levels(self, asked: Sequence[float]) -> list[Level]:
        """Return the levels to probe, from noisy to clean, each of shape ().

        Arguments:
            asked: sigma / alpha; the nearest level that the run was trained on is taken. () for the usual ones.

        Raises:
            ProbeError: For a level outside those of training, or any level of a network that knows none.
        """
        if not self.run.plan.kind.levels:
            if asked:
                kind = self.run.plan.kind
                shown = "a discriminator" if kind.paired else kind.words
                raise ProbeError(
                    f"--at {asked[0]:g}: {shown} is shown images without noise, so it has no levels. Leave it out."
                )
            return [Level.of(1.0, 0.0)]
        known = known_levels(self.run).nsr
        low, high = float(known.min()), float(known.max())
        for nsr in asked:
            if not low <= nsr <= high:
                raise ProbeError(
                    f"--at is sigma/alpha, and this run was trained at levels from {low:.3g} to {high:.3g}; got "
                    f"{nsr:g}."
                )
        chosen = asked or [nsr for nsr in NSR if low <= nsr <= high] or [math.sqrt(low * min(high, 1 / low))]
        return levels_at(self.run, [-2 * math.log(nsr) for nsr in chosen])

    def features(self, data: Dataset, level: Level, blocks: Sequence[str], bar: Bar) -> dict[str, np.ndarray]:
        """Return the features of images at a level by block, and the pixels that the network saw, float32 (N, d).

        Arguments:
            data: Clean images.
            level: Shape ().
            blocks: Paths of blocks.
            bar: Told of finished images.
        """
        parts: list[dict[str, torch.Tensor]] = []
        for start in range(0, len(data), self.batch):
            count = min(self.batch, len(data) - start)
            x = self.noisy(data, level, start, count)
            found = pooled(self.network, self._looking(x, level), blocks, count)
            parts.append({**found, INPUT: x.flatten(1).cpu()})
            bar.update(count)
        return {name: torch.cat([part[name] for part in parts]).numpy() for name in (*blocks, INPUT)}

    def _looking(self, x: torch.Tensor, level: Level) -> Callable[[], object]:
        return partial(self.run.plan.kind.look, self.model, x, level)
