"""Study: what do real images score? The floor at several numbers of images, with and without the finite-sample bias.

The textbook FID of n images is biased by about c/n, so real images of the training set score far from 0 against the
test set when n is small; the unbiased estimate is near 0 at every n, with an interval that narrows. The report
found 87 at n = 500 and 49.84 at n = 1000 for real cats, and took 49.84 for "the optimal FID".

Reference: a student report on cats of CIFAR-10, FID of real images: n = 500 87, n = 1000 49.84, n = 10,000 0.05 (which
is a set against itself). Chong and Forsyth, Effectively Unbiased FID and Inception Score, 2020,
https://arxiv.org/abs/1911.07023
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sfumato.experiments.judges import RealImages
from sfumato.experiments.pages import score_name, series, words
from sfumato.experiments.study import Outcome, Picture, Row, Study, at
from sfumato.recipes.course_ddpm import course_ddpm_cats
from sfumato.recipes.fashion_mnist import edm_fashion_mnist_cpu
from sfumato.report.curves import against_nfe
from sfumato.report.plot import Series
from sfumato.studies._bases import edm, small_edm

SIZES = {
    "tiny": (50, 100, 200, 400),
    "cpu": (200, 500, 1000, 2000, 5000, 10_000, 20_000),
    "paper": (500, 1000),
}  # images judged
PAPER = {500: 87.0, 1000: 49.838}


def calibration(scale: str) -> Study:
    """Score real training images against the test set at several n.

    Arguments:
        scale: "tiny" (digits), "cpu" (Fashion-MNIST at 28x28 and 14x14) or "paper" (cats of CIFAR-10).
    """
    counts = at(scale, SIZES)
    recipes = {"tiny": {"8x8": edm("tiny")}, "paper": {"32x32": course_ddpm_cats()}}.get(
        scale, {"28x28": edm_fashion_mnist_cpu(), "14x14": small_edm("cpu")}
    )
    rows = [
        Row(f"{size}, n = {n:,}", recipe, line=size, x=n, judge=RealImages(n, 4), untrained=True,
            paper=PAPER.get(n) if scale == "paper" else None)
        for size, recipe in recipes.items() for n in counts
    ]  # fmt: skip
    return Study(
        name="calibration",
        scale=scale,
        question="What do real images score, and how does that depend on their number?",
        varies="number of real training images that play the generated set",
        equal="reference, extractor, estimator",
        by="n",
        rows=tuple(rows),
        n=max(counts),
        paper="a student report on cats of CIFAR-10, textbook FID of real cats of CIFAR-10" if scale == "paper" else "",
        plain=True,
        pictures=_pictures,
    )


def _pictures(study: Study, outcomes: Sequence[Outcome]) -> Mapping[str, Picture]:
    drawn = series(outcomes, "fd")
    if not drawn:
        return {}
    for name in list(drawn):
        mine = [o for o in outcomes if o.row.line == name and o.scores["fd"].plain is not None]
        counts = [float(o.row.x or 0) for o in mine]
        drawn[f"{name}, textbook"] = Series.of(counts, [float(o.scores["fd"].plain or 0) for o in mine])
    score = score_name(outcomes, "fd")
    return {"curve": against_nfe(drawn, score=score, floor=0.0, xlabel="real images n", title="What real images score",
                                 caption=words(study, outcomes))}  # fmt: skip
