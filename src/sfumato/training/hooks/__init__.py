"""What a run does beside training, each a hook called after every step."""

from __future__ import annotations

from sfumato.training.hooks import reconstructions, scores, sheets, snapshots
from sfumato.training.hooks.due import Hook, RunContext, StepTaken
from sfumato.training.steps import Steps

__all__ = ["Hook", "StepTaken", "RunContext", "hooks_of"]


def hooks_of(trainer: Steps, context: RunContext) -> list[Hook]:
    """Return the hooks that a recipe asks for.

    Raises:
        RecipeError: If one cannot work with the recipe.
    """
    found = [each.hook(trainer, context) for each in (sheets, reconstructions, snapshots, scores)]
    return [hook for hook in found if hook is not None]
