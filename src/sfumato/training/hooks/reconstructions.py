"""Sheets of an autoencoder during training: held-out images above what comes back of them, by the averaged weights.

They lie in RUN/sheets/IMAGES.png where the run trains an autoencoder alone, and in RUN/sheets/reconstructions beside
the samples where a prior is trained with it.
"""

from __future__ import annotations

import torch
from PIL import Image as PILImage

from sfumato.core.images import tile, to_float, to_uint8
from sfumato.runs.resolve import load_data
from sfumato.runs.run import Run
from sfumato.training.hooks.due import Hook, RunContext, StepTaken
from sfumato.training.steps import Steps

ROWS, COLUMNS = 4, 10  # pairs of rows


def hook(trainer: Steps, context: RunContext) -> Hook | None:
    """Return what draws the sheets; None for a run without an autoencoder of its own."""
    kind, recipe = trainer.plan.kind, trainer.recipe
    if kind.coder is None:
        return None
    with trainer.ranks.in_turn():
        held = load_data(recipe, "test", context.root)
    images = held.take(min(len(held), ROWS * COLUMNS), seed=0).images
    folder = context.folder / "sheets" / ("reconstructions" if kind.draws else "")

    def draw(trainer: Steps, taken: StepTaken) -> None:
        if not taken.sheet_due(recipe.train):
            return
        target = folder / f"{trainer.seen:09d}.png"
        network = trainer.averages.network(trainer.network, recipe.ema.use)
        if not trainer.ranks.first or (not taken.anew and target.exists()):
            return
        coder = Run(context.folder, recipe, {}).autoencoder(device=trainer.device, network=network)
        with torch.no_grad():
            rebuilt = to_uint8(torch.nan_to_num(coder(to_float(images).to(trainer.device))).cpu())
        rows = [half for pair in zip(images.split(COLUMNS), rebuilt.split(COLUMNS)) for half in pair]
        target.parent.mkdir(exist_ok=True, parents=True)
        PILImage.fromarray(tile(torch.cat(rows), min(COLUMNS, len(images)))).save(target)
        for tracker in context.trackers:
            tracker.picture("reconstructions", trainer.seen, target)
        if context.on_sheet is not None and not kind.draws:
            context.on_sheet(target)

    return draw
