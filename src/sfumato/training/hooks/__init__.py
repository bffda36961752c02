"""What a run does beside training, each a hook called after every step: sheets, snapshots, scores."""

from __future__ import annotations

from sfumato.training.hooks import scores, sheets, snapshots
from sfumato.training.hooks.due import Hook, RunContext, StepTaken
from sfumato.training.steps import Steps

__all__ = ["Hook", "StepTaken", "RunContext", "hooks_of"]


def hooks_of(trainer: Steps, context: RunContext) -> list[Hook]:
    """Return the hooks that a recipe asks for.

    Raises:
        RecipeError: If one cannot work with the recipe.
    """
    found = (sheets.hook(trainer, context), snapshots.hook(trainer, context), scores.hook(trainer, context))
    return [hook for hook in found if hook is not None]
