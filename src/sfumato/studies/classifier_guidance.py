"""Study: a classifier of noisy images guides a model that knows no labels; how strongly should it?

One unlabelled run and one classifier; the scale s of its gradient rises. Precision is said to rise with s and recall to
fall, with the best distance between. The sheet has one class at s = 1 and at s = 10: more typical, and less varied.

References:
    Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. 2021, figures 3 and 4, Table 4.
    https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from sfumato.experiments.figures import panels, shown, words_of_images
from sfumato.experiments.pages import words
from sfumato.experiments.study import Ordering, Outcome, Picture, Row, Study, at, variant
from sfumato.recipes.digits_families import adm_digits_classifier
from sfumato.report.curves import against_guidance
from sfumato.report.sheet import sheet
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe, part
from sfumato.runs.run import Run
from sfumato.studies._bases import small_iddpm

# scale -> scales s, images judged, steps
SIZES = {"tiny": ((0.0, 1.0, 10.0), 100, 10), "cpu": ((0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 11.0), 1000, 25)}
METRICS = ("fd", "precision", "recall")
SOURCE = "Dhariwal, Nichol 2021, figure 4"
WEAK, STRONG = 1.0, 10.0  # of the sheet


def classifier_recipe(scale: str, base: Recipe) -> Recipe:
    """Return the classifier of noisy images for the data and chain of an unlabelled recipe.

    Arguments:
        scale: "tiny" or "cpu".
        base: The recipe it guides.
    """
    options: dict[str, object] = {"mult": (1, 2), "blocks": 1, "attention": (4 if scale == "tiny" else 7,)}
    options |= {"width": 16, "groups": 8, "head_width": 16} if scale == "tiny" else {"width": 32}
    guide = adm_digits_classifier()
    train = replace(base.train, optimizer=guide.train.optimizer, rate=guide.train.rate)
    return replace(
        base,
        name=f"{base.name}-classifier",
        data=replace(base.data, labels=True),
        network=part("network", "adm-classifier", **options),
        c_noise=guide.c_noise,
        variance="none",
        objective=guide.objective,
        train=train,
        sample=guide.sample,
        shape=None,
    )


def classifier_guidance(scale: str) -> Study:
    """Sweep the scale of a classifier's gradient over one unlabelled run.

    Arguments:
        scale: "tiny" (digits) or "cpu" (Fashion-MNIST at 14x14).
    """
    scales, n, steps = at(scale, SIZES)
    base = variant(small_iddpm(scale, steps), "unlabelled", ["data.labels=false"])
    names = [f"s = {s:g}" for s in scales]
    rows = [
        Row(name, base, (f"sample.classifier_scale={s}",), run="model", x=s, guide="classifier")
        if s
        else Row(name, base, run="model", x=s)
        for name, s in zip(names, scales)
    ]
    middle = names[max(1, len(names) // 3)]
    return Study(
        name="classifier-guidance",
        scale=scale,
        question="How strongly should a classifier guide?",
        varies="scale s of the classifier's gradient; at s = 0 no class is asked for",
        equal="one trained run and one classifier, sampler, grid, starting noise of every image, n",
        by="s",
        rows=tuple(rows),
        metrics=METRICS,
        n=n,
        guides={"classifier": classifier_recipe(scale, base)},
        orderings=(  # s = 0 asks for no class, another protocol
            Ordering("precision rises with s", (names[1], names[-1]), "precision", SOURCE),
            Ordering("recall falls with s", (names[-1], names[1]), "recall", SOURCE),
            Ordering(f"the best FD is not at the end: {middle} below {names[-1]}", (middle, names[-1]), "fd", SOURCE),
        ),
        pictures=_pictures,
    )


def _pictures(study: Study, outcomes: Sequence[Outcome]) -> Mapping[str, Picture]:
    if not any(outcome.scores for outcome in outcomes):
        return {}
    lines, floors = panels(study, outcomes)
    caption = words(study, outcomes)
    curves = against_guidance(
        lines, floors=floors, weight="scale s of the gradient", title="Classifier guidance", caption=caption
    )
    guided = next((run for outcome, run in shown(outcomes) if outcome.row.guide), None)
    if guided is None:
        return {"curves": curves}
    return {"curves": curves, "sheet": _sheet(guided, words_of_images(study, outcomes))}


def _sheet(run: Run, caption: str) -> Picture:
    """Draw one class at two scales, the same seeds."""
    seeds = range(20)
    parts = []
    for s in (WEAK, STRONG):
        source = run.with_recipe(override(run.recipe, [f"sample.classifier_scale={s}"])).source()
        parts.append(source(seeds, torch.zeros(len(seeds), dtype=torch.int64)))
    names = [f"s = {WEAK:g}", "", f"s = {STRONG:g}", ""]
    return sheet(
        torch.cat(parts), 10, row_labels=names, seeds=[*seeds, *seeds], title=f"Class {run.classes[0]}", caption=caption
    )
