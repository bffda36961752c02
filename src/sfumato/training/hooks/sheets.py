"""Sheets of samples during training: fixed seeds, a row per class, the averaged weights; the raw ones beside them.

What the raw weights draw shows how training moves, what the average draws shows what the run is worth; they lie in
RUN/sheets/IMAGES.png and RUN/sheets/raw/IMAGES.png.
"""

from __future__ import annotations

import torch
from PIL import Image as PILImage
from tqdm import tqdm

from sfumato.core.images import NonFiniteError, tile
from sfumato.processes.dealing import images_of_all
from sfumato.runs.kinds import kind_of
from sfumato.runs.run import Run
from sfumato.training.hooks.due import Hook, RunContext, StepTaken
from sfumato.training.steps import Steps

COLUMNS = 8


def hook(trainer: Steps, context: RunContext) -> Hook | None:
    """Return what draws the sheets of a run; None for a classifier, which draws nothing."""
    if not kind_of(trainer.recipe).draws:
        return None
    train = trainer.recipe.train

    def draw(trainer: Steps, taken: StepTaken) -> None:
        by_share = train.minutes is not None and train.sheet_every is None
        every = train.sheet_every or max(train.batch, train.images // 10)
        due = taken.passed_part(10) if by_share else taken.passed(every)
        if (due and not taken.leaving) or taken.finished:
            for use in dict.fromkeys((trainer.recipe.ema.use, "raw")):
                _sheet(trainer, context, use, taken.anew)

    return draw


def _sheet(trainer: Steps, context: RunContext, use: str, anew: bool) -> None:
    recipe, ranks = trainer.recipe, trainer.ranks
    folder = context.folder / "sheets"
    own = use == recipe.ema.use
    target = (folder if own else folder / use) / f"{trainer.seen:09d}.png"
    if not anew and ranks.from_first(target.exists()):
        return
    network = trainer.averages.network(trainer.network, use)
    run = Run(context.folder, recipe, {})
    source = run.source(device=trainer.device, network=network)
    rows = min(len(run.classes), 10) or 4
    labels = torch.arange(rows).repeat_interleave(COLUMNS) if run.classes else None
    try:
        images = images_of_all(ranks, source, range(rows * COLUMNS), labels)
    except NonFiniteError as error:
        if ranks.first:
            tqdm.write(f"No sheet of the {use} weights at {trainer.seen:,} images: {error}")
        return
    if not ranks.first:
        return
    target.parent.mkdir(exist_ok=True, parents=True)
    PILImage.fromarray(tile(images, COLUMNS)).save(target)
    for tracker in context.trackers:
        tracker.picture("samples" if own else f"samples/{use}", trainer.seen, target)
    if own and context.on_sheet is not None:
        context.on_sheet(target)
