"""Snapshots of the power averages during a run, from which `runs.averages` makes an average of any width.

They are taken at equal shares of the budget, the end included, and lie in RUN/snapshots/step-N in the format of
checkpoints: whole or not there, verified by hash. A resumed run drops those that it has not reached again. An early one
is a weak model to guide away from: autoguidance=@STEP.
"""

from __future__ import annotations

from sfumato.progress import say
from sfumato.runs import checkpoint
from sfumato.runs.averages import GROUP
from sfumato.runs.recipe import RecipeError
from sfumato.training.hooks.due import Hook, RunContext, StepTaken
from sfumato.training.steps import Steps

ALL = 2**62  # keep every snapshot


def hook(trainer: Steps, context: RunContext) -> Hook | None:
    """Return what keeps the snapshots of a run; None if it keeps none.

    Raises:
        RecipeError: If the run tracks fewer than two power averages.
    """
    ema = trainer.recipe.ema
    if ema.snapshots < 1:
        return None
    if len(ema.power) < 2:
        raise RecipeError(
            f"ema.snapshots={ema.snapshots} keeps power averages, of which at least two widths are needed to make "
            f"others; ema.power holds {len(ema.power)}. Set ema.power=0.05,0.10."
        )
    folder = context.folder / "snapshots"
    if trainer.ranks.first:
        checkpoint.drop_after(folder, trainer.step)

    def keep(trainer: Steps, taken: StepTaken) -> None:
        if not taken.passed_part(ema.snapshots):
            return
        powers = {name: w for name, w in trainer.averages.tensors().items() if name.startswith(GROUP)}
        tensors = trainer.averages.held.gathered(powers)  # of all ranks, so all call it
        if not trainer.ranks.first or (taken.finished and trainer.step in checkpoint.steps(folder)):
            return  # the latter at the end of a run that is started again
        if wrong := checkpoint.not_finite(tensors):
            say(f"No snapshot at {trainer.seen:,} images: {wrong} is not finite.")
            return
        widths = [name.removeprefix(GROUP) for name in powers]
        recipe = trainer.recipe.to_json()
        state = {"seen": trainer.seen, "step": trainer.step, "averages": widths, "recipe": recipe}
        checkpoint.save(folder, trainer.step, tensors, state, keep=ALL, fingerprint=context.fingerprint)

    return keep
