"""What a form of guidance may ask about the model that it guides."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What is known of a trained model before any image is made.

    A file of this package may hold a function ``check(facts, options)``, which raises ValueError, with the rule and the
    remedy, if its form of guidance cannot guide such a model.

    Attributes:
        classes: Number of labels that it knows; 0 for an unlabelled model.
        label_dropout: Share of training without a label; None if its objective has no such option.
        before: Names of the forms of guidance that are applied before this one.
    """

    classes: int
    label_dropout: float | None
    before: tuple[str, ...] = ()
