"""Study: classifier-free guidance buys fidelity with variety.

One class-conditional run is sampled at rising guidance weight w (1 is none). Precision is the share of generated images
inside the real manifold, recall the share of real ones inside the generated: the first is said to rise with w and the
second to fall, with the best distance between. Weights of the sheet are those of the classic four.

References:
    Ho, Salimans. Classifier-Free Diffusion Guidance. 2022, Table 1 and figure 4. https://arxiv.org/abs/2207.12598
    Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. 2021, figure 4. https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch

from sfumato.experiments.figures import panels, shown, words_of_images
from sfumato.experiments.pages import words
from sfumato.experiments.study import Ordering, Outcome, Picture, Row, Study, at
from sfumato.report.curves import against_guidance, precision_recall
from sfumato.report.plot import Series
from sfumato.report.sweep import cfg_sheet
from sfumato.runs.run import Run
from sfumato.studies._bases import edm

SIZES = {
    "tiny": ((1.0, 2.0, 4.0), 200),
    "cpu": ((1.0, 1.15, 1.3, 1.6, 2.0, 2.5, 3.5, 5.0, 7.0), 2000),
}  # scale -> weights, images judged
METRICS = ("fd", "precision", "recall")
HO, DHARIWAL = "Ho, Salimans 2022, Table 1", "Dhariwal, Nichol 2021, figure 4"


def guidance(scale: str) -> Study:
    """Sweep the guidance weight of one run: distance, precision and recall, and a sheet of the same seeds.

    Arguments:
        scale: "tiny" (digits) or "cpu" (Fashion-MNIST at 14x14).
    """
    weights, n = at(scale, SIZES)
    names = [f"w = {w:g}" for w in weights]
    recipe, middle = edm(scale), len(weights) // 3
    rows = [Row(name, recipe, (f"sample.guidance={w}",), run="edm", line="edm", x=w) for name, w in zip(names, weights)]
    return Study(
        name="guidance",
        scale=scale,
        question="What does guidance buy, and what does it cost?",
        varies="guidance weight w",
        equal="one trained run, sampler and grid, starting noise of every image, n",
        by="w",
        rows=tuple(rows),
        metrics=METRICS,
        n=n,
        orderings=(
            Ordering(f"FD at {names[middle]} is below no guidance", (names[middle], names[0]), source=HO),
            Ordering("the strongest guidance scores above a moderate one", (names[middle], names[-1]), source=HO),
            Ordering("recall falls as w rises", tuple(names[::-1]), "recall", DHARIWAL),
            Ordering(
                f"precision rises from no guidance to {names[middle]}", (names[0], names[middle]), "precision", DHARIWAL
            ),
        ),
        pictures=_pictures,
    )


def _pictures(study: Study, outcomes: Sequence[Outcome]) -> Mapping[str, Picture]:
    if not any(outcome.scores for outcome in outcomes):
        return {}
    lines, floors = panels(study, outcomes)
    caption, (_, precision, recall) = words(study, outcomes), lines.values()
    labels = [f"w = {w:g}" for w in precision.x]
    return {
        "curves": against_guidance(lines, floors=floors, title="Guidance", caption=caption),
        "front": precision_recall(
            {"": Series.of(recall.y, precision.y)}, {"": labels}, title="Guidance", caption=caption
        ),
        **_sheet(study, next((run for _, run in shown(outcomes)), None), outcomes),
    }


def _sheet(study: Study, run: Run | None, outcomes: Sequence[Outcome]) -> Mapping[str, Picture]:
    """Draw the same seeds of every class at every weight; `run` is that of the row with w = 1."""
    if run is None:
        return {}
    weights, labels = [cast(float, row.x) for row in study.rows], torch.arange(len(run.classes))
    return {"sheet": cfg_sheet(run.diffusion(), range(len(labels)), labels, weights, row_labels=run.classes,
                               title="Guidance", caption=words_of_images(study, outcomes))}  # fmt: skip
