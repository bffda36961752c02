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
from sfumato.runs.costs import sampling_cost
from sfumato.runs.kinds import kind_of
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe
from sfumato.runs.run import Run
from sfumato.training.hooks.due import Hook, RunContext, StepTaken
from sfumato.training.steps import Steps

COLUMNS = 8
PARTS = 10  # sheets of a run unless train.sheet_every says how often
SHARE = 0.005, 0.05  # of a budget of minutes: what a sheet on the way takes at most, and what the one at the end takes


def hook(trainer: Steps, context: RunContext) -> Hook | None:
    """Return what draws the sheets of a run; None for a classifier, which draws nothing."""
    if not kind_of(trainer.recipe).draws:
        return None
    train = trainer.recipe.train

    calls = sampling_cost(plan(trainer.recipe))[1]

    def columns(taken: StepTaken) -> int:
        """Return how many columns fit into a sheet's share of the minutes; one call costs a third of training."""
        if train.minutes is None or not taken.pace:
            return COLUMNS
        column = 2 * _rows(trainer.recipe) * calls * taken.pace / 3
        return min(COLUMNS, int(SHARE[taken.finished] * 60 * train.minutes / column))

    def draw(trainer: Steps, taken: StepTaken) -> None:
        by_share = train.minutes is not None and train.sheet_every is None
        every = train.sheet_every or max(train.batch, train.images // PARTS)
        due = taken.passed_part(PARTS) if by_share else taken.passed(every)
        if not ((due and not (taken.leaving or taken.hurried)) or taken.finished):
            return
        (count,) = map(int, trainer.ranks.largest(max(columns(taken), taken.finished)))
        for use in dict.fromkeys((trainer.recipe.ema.use, "raw")) if count else ():
            _sheet(trainer, context, use, count)

    return draw


def _rows(recipe: Recipe) -> int:
    return min(len(recipe.shape.classes) if recipe.shape else 0, 10) or 4


def _sheet(trainer: Steps, context: RunContext, use: str, columns: int) -> None:
    recipe, ranks = trainer.recipe, trainer.ranks
    network = trainer.averages.network(trainer.network, use)
    run = Run(context.folder, recipe, {})
    source = run.source(device=trainer.device, network=network)
    rows = _rows(recipe)
    labels = torch.arange(rows).repeat_interleave(columns) if run.classes else None
    folder = context.folder / "sheets"
    own = use == recipe.ema.use
    target = (folder if own else folder / use) / f"{trainer.seen:09d}.png"
    try:
        images = images_of_all(ranks, source, range(rows * columns), labels)
    except NonFiniteError as error:
        if ranks.first:
            tqdm.write(f"No sheet of the {use} weights at {trainer.seen:,} images: {error}")
        return
    if not ranks.first:
        return
    target.parent.mkdir(exist_ok=True, parents=True)
    PILImage.fromarray(tile(images, columns)).save(target)
    for tracker in context.trackers:
        tracker.picture("samples" if own else f"samples/{use}", trainer.seen, target)
    if own and context.on_sheet is not None:
        context.on_sheet(target)
