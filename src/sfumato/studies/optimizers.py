"""Study: Muon on hidden convolutions or AdamW on everything, each at rates around its own, and the batch.

Rows are trained for equal minutes, since Muon's step and small batches cost more time: what counts is the score that
a person has after waiting for as long. The rate of each optimiser is tried at halves and doubles, so that none is
judged at a rate that suits another; the best of several tries is a little lucky, which holds for both.

Reference:
    Jordan et al. Muon: An optimizer for hidden layers in neural networks. 2024. https://kellerjordan.github.io/posts/muon/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sfumato.experiments.figures import curve, sheets
from sfumato.experiments.study import Ordering, Outcome, Picture, Row, Study, at, variant
from sfumato.recipes.digits import edm_digits
from sfumato.recipes.fashion_mnist import fashion_mnist_cpu_hour
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.studies._bases import tiny

SIZES = {"tiny": (100, (0,), 0.0), "cpu": (2000, (0,), 4.0)}  # images judged, training seeds, minutes (0: equal images)
RATES = {"Muon": (0.02, (0.25, 0.5, 1, 2)), "AdamW": (0.001, (1, 2, 4))}  # the usual rate, multiples that are tried
BATCHES = (32, 128)  # beside 64, at Muon's own rate
OPTIONS = {
    "Muon": ("train.optimizer=muon", "train.optimizer.rest_lr=0.001"),
    "AdamW": ("train.optimizer=adamw", "train.optimizer.beta2=0.99"),
}


def _base(scale: str, minutes: float) -> Recipe:
    if scale == "tiny":
        return tiny(edm_digits())
    once = ("draw.mean=-1.2", "train.evaluate_every=none", "train.sheet_every=100000000", "train.log_every=1280")
    kept = ("ema.power=0.10", "ema.use=power-0.10", "ema.snapshots=0", "sample.guidance=1.0")
    made = override(fashion_mnist_cpu_hour(), (f"train.minutes={minutes:g}", *once, *kept))
    return replace(made, name="edm-fashion-mnist")


def _rated(kind: str, rate: float) -> tuple[str, ...]:
    return *OPTIONS[kind], f"train.optimizer.lr={rate:g}"


def optimizers(scale: str) -> Study:
    """Compare Muon with AdamW at rates around each one's own, and batches, for equal minutes.

    Arguments:
        scale: "tiny" (digits, for equal images) or "cpu" (Fashion-MNIST at 28x28, the network of the hour).
    """
    n, seeds, minutes = at(scale, SIZES)
    base = _base(scale, minutes)

    def row(name: str, times: float, line: str, *fields: str) -> Row:
        return Row(name, variant(base, name, fields), line=line, x=times)

    rows = [
        row(f"{kind} {own * times:g}", times, f"{kind}, times {own:g}", *_rated(kind, own * times))
        for kind, (own, tried) in RATES.items()
        for times in tried
    ]
    own = RATES["Muon"][0]
    best, fields = f"Muon {own:g}", _rated("Muon", own)
    rows += [row(f"{best}, batch {size}", 1, f"Muon, batch {size}", *fields, f"train.batch={size}") for size in BATCHES]
    return Study(
        name="optimizers",
        scale=scale,
        question="Which optimiser is best for the time it takes, each at its own rate?",
        varies="the optimiser, its rate, and the batch",
        equal="data, network, EDM's objective, shape of the rate's fall, average of the weights, sampler, n; "
        + (f"{minutes:g} minutes of training on a thread" if minutes else "images seen"),
        by="rate, in multiples",
        rows=tuple(rows),
        n=n,
        seeds=seeds,
        orderings=tuple(
            Ordering.below(best, f"AdamW {RATES['AdamW'][0] * times:g}", "Jordan et al. 2024, of language models")
            for times in RATES["AdamW"][1]
        ),
        timed=True,
        pictures=_pictures,
    )


def _pictures(study: Study, outcomes: Sequence[Outcome]) -> Mapping[str, Picture]:
    scores = curve("learning rate, in multiples of each optimiser's own", study.question)
    return {**scores(study, outcomes), **sheets(study, outcomes)}
