"""Study: a convolutional network takes images of any size; what does it make of a size it never saw?

Two runs at a small size, with and without attention, are sampled at that size and at twice the side. Each size has its
own reference: real images at that size (Fashion-MNIST at 14 by box means and at its native 28; digits at 8 and, for
want of larger ones, padded to 16). Scores of different sizes are different protocols and are not compared; with and
without attention are. Features are those of the untrained network, the only ones that take any size.

What to look for in the sheets: zero padding tells a network where the border is, and attention who else is there. At
twice the side the object is expected to be multiplied or stretched, not enlarged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from sfumato.experiments.figures import shown, words_of_images
from sfumato.experiments.study import Ordering, Outcome, Picture, Row, Study, at, slug, variant
from sfumato.report.sheet import sheet
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.studies._bases import small_edm

# scale -> side of training, overrides of the data there, overrides at twice the side, images judged
SIZES: dict[str, tuple[int, tuple[str, ...], tuple[str, ...], int]] = {
    "tiny": (8, (), ("data.pad=16",), 200),
    "cpu": (14, (), ("data.size=none",), 2560),
}
COLUMNS, ROWS = 10, 3


def _runs(scale: str, trained: Sequence[str]) -> dict[str, Recipe]:
    """Return the runs with and without attention."""
    base = override(small_edm(scale), [*trained, "evaluate.extractor=random"])
    return {
        "attention": variant(base, "attention"),
        "no attention": variant(base, "no attention", ["network.attention=()"]),
    }


def conv_sampling(scale: str) -> Study:
    """Sample runs with and without attention at the size they were trained at and at twice the side.

    Arguments:
        scale: "tiny" (digits) or "cpu" (Fashion-MNIST).
    """
    side, trained, doubled, n = at(scale, SIZES)
    at_size = {side: (), 2 * side: (*doubled, f"shape.height={2 * side}", f"shape.width={2 * side}")}
    rows = [
        Row(f"{run}, {size}x{size}", recipe, settings, run=run, line=run, x=size)
        for run, recipe in _runs(scale, trained).items()
        for size, settings in at_size.items()
    ]
    return Study(
        name="conv-sampling",
        scale=scale,
        question="What does a network make of images twice the size of its training, and does attention help?",
        varies="side of the sampled images; whether the network attends",
        equal=f"data, training at {side}x{side}, every layer but attention, images seen, sampler, grid, n",
        by="side",
        rows=tuple(rows),
        n=n,
        orderings=tuple(
            Ordering(
                f"at {size}x{size}, attention scores below none",
                (f"attention, {size}x{size}", f"no attention, {size}x{size}"),
            )
            for size in at_size
        ),
        pictures=_pictures,
    )


def _pictures(study: Study, outcomes: Sequence[Outcome]) -> Mapping[str, Picture]:
    drawn = {}
    for outcome, run in shown(outcomes):
        seeds = range(COLUMNS * ROWS)
        labels = torch.arange(len(seeds)) % len(run.classes) if run.classes else None
        images = run.source()(seeds, labels)
        drawn[slug(outcome.row.name)] = sheet(
            images, COLUMNS, seeds=seeds, title=outcome.row.name, caption=words_of_images(study, outcomes)
        )
    return drawn
