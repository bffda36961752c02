"""Study: does a second class help the first?

A model of one class alone against a conditional model of two, judged on that class; and the two classes without labels.
The report found its conditional cats better than its cats alone, but the two had seen different numbers of
cats and taken different numbers of steps. Here every run takes the same number of gradient steps, so a conditional
model has seen each class half as often.

Reference: a student report on cats of CIFAR-10, FID of 1,000 images: cats alone (cosine) 115.9, cats asked of cats and
frogs 102.9, frogs 70.5.
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.experiments.figures import sheets
from sfumato.experiments.judges import OneClass
from sfumato.experiments.study import Ordering, Row, Study, at
from sfumato.recipes.course_ddpm import course_ddpm_cats_cosine
from sfumato.runs.override import override
from sfumato.studies._bases import only, small_edm

# scale -> the two classes, images judged, training seeds
SIZES = {
    "tiny": (("0", "1"), 80, (0,)),
    "cpu": (("pullover", "trouser"), 1000, (0, 1, 2)),
    "lossy": (("cat", "frog"), 1000, (0, 1)),
    "paper": (("cat", "frog"), 1000, (0,)),
}
PAPER = {"first: alone": 115.9, "first: asked of both": 102.9, "second: asked of both": 70.5}
SOURCE = "a student report on cats of CIFAR-10"


def one_or_two_classes(scale: str) -> Study:
    """Compare a model of one class, one of two, and a conditional one of two, at equal gradient steps.

    Arguments:
        scale: "tiny" (digits), "cpu" (Fashion-MNIST at 14x14: pullover, trouser), "lossy" or "paper"
            (CIFAR-10: cat, frog).
    """
    (first, second), n, seeds = at(scale, SIZES)
    base = small_edm(scale)
    if scale == "tiny":
        base = override(base, ["data.test=0.5"])  # enough digits of a class for an interval
    if scale == "paper":
        base = override(course_ddpm_cats_cosine(), ["data.classes=()"])
    both = only(base, (first, second), True)
    runs = {
        "first": only(base, (first,), False),
        "second": only(base, (second,), False),
        "both": override(both, ["objective.label_dropout=0"]),
        "unlabelled": only(base, (first, second), False),
    }
    labels = {"first": first, "second": second}
    rows = [
        *(Row(f"{k}: alone", runs[k], run=k, judge=OneClass(label, asked=False)) for k, label in labels.items()),
        *(Row(f"{k}: asked of both", runs["both"], run="both", judge=OneClass(label)) for k, label in labels.items()),
        Row("both: conditional", runs["both"], run="both"),
        Row("both: unlabelled", runs["unlabelled"], run="unlabelled"),
    ]
    rows = [replace(row, paper=PAPER.get(row.name)) for row in rows]
    claim = "{0} asked of two classes scores below {0} alone"
    return Study(
        name="one-or-two-classes",
        scale=scale,
        question="Does training on a second class help the first, at equal steps?",
        varies="classes seen, and whether the model is told of them",
        equal="network, gradient steps, optimiser, sampler, grid, n; a class is judged against its own real images",
        rows=tuple(rows),
        metrics=("kid", "fd"),
        n=n,
        seeds=seeds,
        orderings=tuple(
            Ordering(claim.format(label), (f"{k}: asked of both", f"{k}: alone"), "kid", source)
            for (k, label), source in zip(labels.items(), (SOURCE, ""))
        ),
        paper=f"{SOURCE}: FID on cats and frogs of CIFAR-10, 1,000 images, unequal steps",
        pictures=sheets,
    )
