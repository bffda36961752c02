"""Fine-tuning: a model of some classes goes on with few images of others, ``train.start``."""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes.digits import edm_digits
from sfumato.runs.recipe import Recipe, part


def finetune_digits() -> Recipe:
    """The digits 5 to 9 learned from 100 images, by a model that knows 0 to 4.

    The parent is edm-digits on the first five classes, told no label one time in ten, so that new classes can begin
    from its row for "no label". The way down stays as it is; rows of the classes move ten times as fast as the rest.

    Command: sfumato train edm-digits data.classes=0,1,2,3,4 objective.label_dropout=0.1 --out runs/digits-0-4
        sfumato train finetune-digits train.start=runs/digits-0-4
    Cost: 6,400 images, after the parent's 40,000.
    Expected: no published score.
    """
    base = edm_digits()
    return replace(
        base,
        name="finetune-digits",
        data=replace(base.data, classes=("5", "6", "7", "8", "9"), first=100),
        objective=part("objective", "denoising", label_dropout=0.1),
        train=replace(
            base.train,
            images=6400,
            start="runs/digits-0-4",
            freeze=("down",),
            rate_factors=("label:10",),
            optimizer=part("optimizer", "adam", lr=5e-4),
            rate=part("rate", "linear", warmup=640.0, hold=0.4),
        ),
    )
