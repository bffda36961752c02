"""What a run does beside training, each a hook called after every step: sheets, snapshots, scores."""

from __future__ import annotations

from sfumato.training.hooks import scores, sheets, snapshots
from sfumato.training.hooks.moment import Hook, Moment, Place
from sfumato.training.trainers import Steps

__all__ = ["Hook", "Moment", "Place", "hooks_of"]


def hooks_of(trainer: Steps, place: Place) -> list[Hook]:
    """Return the hooks that a recipe asks for.

    Raises:
        RecipeError: If one cannot work with the recipe.
    """
    found = (sheets.hook(trainer, place), snapshots.hook(trainer, place), scores.hook(trainer, place))
    return [hook for hook in found if hook is not None]
