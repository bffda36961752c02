"""Sheets of samples during training: fixed seeds, a row per class, the averaged weights; the raw ones beside them.

They walk fewer steps where all of them would cost more than training (`training.hooks.live`), and where they would take
more than their share of a budget of minutes, fewer steps first and then fewer columns.

What the raw weights draw shows how training moves, what the average draws shows what the run is worth; they lie in
RUN/sheets/IMAGES.png and RUN/sheets/raw/IMAGES.png.
"""

from __future__ import annotations

import torch
from PIL import Image as PILImage

from sfumato.core.condition import Label
from sfumato.core.denoiser import StoppedError
from sfumato.core.images import NonFiniteError, tile
from sfumato.processes.dealing import images_of_all
from sfumato.progress import say
from sfumato.runs.checkpoint import CheckpointError
from sfumato.runs.conditions import lent
from sfumato.runs.drawn import SHEETS
from sfumato.runs.guided import sampling_cost
from sfumato.runs.resolve import load_data
from sfumato.runs.run import Run
from sfumato.training.hooks.due import Hook, RunContext, StepTaken, between_sheets
from sfumato.training.hooks.live import FEWEST, PASSES, live_source
from sfumato.training.steps import Steps

COLUMNS = 8
SHORT = 25  # steps that a budget of minutes leaves to a walk before it takes columns
SHARE = 0.005, 0.05  # of a budget of minutes: what a sheet on the way takes at most, and what the one at the end takes


def hook(trainer: Steps, context: RunContext) -> Hook | None:
    """Return what draws the sheets of a run; None for a classifier, which draws nothing."""
    if not trainer.plan.kind.draws:
        return None
    recipe, train = trainer.recipe, trainer.recipe.train
    uses, classes = list(dict.fromkeys((recipe.ema.use, "raw"))), Run(context.folder, recipe, {}).classes
    rows = min(len(classes), 10) or 4
    every_step, calls = sampling_cost(trainer.plan)
    most = every_step
    if train.minutes is None:  # all sheets ask the network no more often than training does
        drawn = len(uses) * rows * COLUMNS * (1 + train.images // between_sheets(train))
        most = max(FEWEST, min(every_step, PASSES * train.images * every_step // (drawn * calls)))
    lends = load_data(recipe, "test", context.root) if recipe.data.told_more else None  # their conditions

    def fitting(taken: StepTaken) -> tuple[int, int]:
        """Return the columns and steps that fit into a sheet's share of the minutes, steps cut before columns.

        One call of the network for an image costs a third of training with it.
        """
        if train.minutes is None or not taken.pace:
            return COLUMNS, most
        passes = PASSES * SHARE[taken.finished] * 60 * train.minutes / taken.pace / (len(uses) * rows)
        steps = max(min(SHORT, every_step), min(every_step, int(passes * every_step / calls / COLUMNS)))
        return min(COLUMNS, int(passes * every_step / calls / steps)), steps

    def draw(trainer: Steps, taken: StepTaken) -> None:
        if not taken.sheet_due(train):
            return
        count, steps = map(int, trainer.ranks.largest(*fitting(taken)))
        columns = max(1, count)
        labels: Label | None = torch.arange(rows).repeat_interleave(columns) if classes else None
        if lends is not None:
            labels = lent(recipe, lends, range(rows * columns))
        for use in uses if count or taken.finished else ():
            _sheet(trainer, context, use, steps, taken, rows, columns, labels)

    return draw


def _sheet(
    trainer: Steps,
    context: RunContext,
    use: str,
    steps: int,
    taken: StepTaken,
    rows: int,
    columns: int,
    labels: Label | None,
) -> None:
    recipe, ranks, folder = trainer.recipe, trainer.ranks, context.folder / SHEETS
    own = use == recipe.ema.use
    target = (folder if own else folder / use) / f"{trainer.seen:09d}.png"
    if not taken.anew and ranks.from_first(target.exists()):
        return
    try:
        source = live_source(trainer, context, use, taken.stop, steps)
        images = images_of_all(ranks, source, range(rows * columns), labels)
    except (NonFiniteError, CheckpointError, StoppedError) as error:
        if ranks.first:
            say(f"No sheet of the {use} weights at {trainer.seen:,} images: {error}")
        return
    if not ranks.first:
        return
    target.parent.mkdir(exist_ok=True, parents=True)
    PILImage.fromarray(tile(images, columns)).save(target)
    for tracker in context.trackers:
        tracker.picture("samples" if own else f"samples/{use}", trainer.seen, target)
    if own and context.on_sheet is not None:
        context.on_sheet(target)
