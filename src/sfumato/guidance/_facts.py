"""What a form of guidance may ask about the model that it guides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Facts:
    """What is known of a trained model before any image is made.

    A file of this package may hold a function ``check(facts, options)``, which raises ValueError, with the rule and the
    remedy, if its form of guidance cannot guide such a model.

    Attributes:
        classes: Number of labels that it knows; 0 for an unlabelled model.
        label_dropout: Share of training without a label; None if its objective has no such option.
        before: Names of the forms of guidance that are applied before this one.
        dropouts: Share of training without it, for the vector and the image of a condition, where it is told them.
    """

    classes: int
    label_dropout: float | None
    before: tuple[str, ...] = ()
    dropouts: Mapping[str, float] = field(default_factory=dict)
