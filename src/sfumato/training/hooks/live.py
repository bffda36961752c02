"""The run as it stands in training, as a maker of images: weights and weak model are the trainer's own.

A preview must not cost more than the training that it shows. Where all sheets of a run would ask the network about more
images than training itself, or more than their share of a budget of minutes, they walk fewer levels of the recipe's own
grid, its ends included, and by `ddim` if the recipe's sampler needs many; `sfumato sample` walks as the recipe says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from sfumato.core.denoiser import stoppable
from sfumato.core.level import Level
from sfumato.processes.machine import give_back_freed_memory
from sfumato.runs.guided import own_average
from sfumato.runs.part import constant
from sfumato.runs.recipe import part
from sfumato.runs.run import Run
from sfumato.sources import Diffusion, Maker
from sfumato.training.hooks.due import RunContext
from sfumato.training.steps import Steps

PASSES = 3  # of the network for an image of training: forward, and backward twice as much
FEWEST = 10  # steps of a preview


def live_source(
    trainer: Steps, context: RunContext, use: str, stop: Callable[[], str | None], most_steps: int | None = None
) -> Maker:
    """Return a maker of images of the weights as they are now; all ranks call this.

    Arguments:
        trainer: Holds the weights.
        context: Directory of the run.
        use: The average of the weights.
        stop: Asked before every call of the network; a text raises a StoppedError. It is not asked where several
            processes work, since all of them must do the same.
        most_steps: Steps of the grid that are walked at most; None for all.

    Raises:
        CheckpointError, RecipeError: If the weak model that guides is a checkpoint that is not there yet.
    """
    give_back_freed_memory()  # samples need blocks of other sizes than training
    recipe = trainer.recipe
    cut = most_steps is not None and trainer.plan.kind.walks and most_steps < len(trainer.plan.grid) - 1
    if cut and (constant(recipe.sample.sampler, "ORDER") or 1) < 2:
        recipe = replace(recipe, sample=replace(recipe.sample, sampler=part("sampler", "ddim")))
    run = Run(context.folder, recipe, {})
    own, weak = own_average(trainer.recipe.sample), None
    if own is not None:
        weak = run.plan.model(trainer.averages.network(trainer.network, own)).to(trainer.device)
    network = trainer.averages.network(trainer.network, use)
    source = run.source(device=trainer.device, network=network, weak=weak)
    if not isinstance(source, Diffusion):
        return source
    if cut and most_steps is not None:
        source = source.having(grid=thinned(source.grid, most_steps))
    return source if trainer.ranks.world > 1 else source.having(denoiser=stoppable(source.denoiser, stop))


def thinned(grid: Level, steps: int) -> Level:
    """Return a grid of at most so many steps, evenly taken, its ends included.

    >>> len(thinned(Level(torch.linspace(0, 1, 101), torch.linspace(1, 0, 101)), 10))
    11
    """
    most = min(steps, len(grid) - 1)
    return grid[torch.linspace(0, len(grid) - 1, most + 1, dtype=torch.float64).round().long()]
