"""Orderings in words, on scores whose differences and errors are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from sfumato.experiments.pages import mean_cell, ranks, series
from sfumato.experiments.study import Ordering, Outcome, Row, Study
from sfumato.experiments.verdict import rises, verdicts
from sfumato.experiments.verdict import verdict as answered
from sfumato.metrics.protocol import EvalProtocol, IncomparableError, Reference
from sfumato.metrics.score import Score
from sfumato.runs.recipe import Recipe

GROUPS = 20
COMMON = np.random.Generator(np.random.Philox(1)).normal(size=GROUPS)  # noise that all rows share


def score(value: float, own: float = 0.0, seed: int = 2, metric: str = "FD") -> Score:
    """A score whose jackknife sees shared noise of size 1 and its own of size `own`."""
    rng = np.random.Generator(np.random.Philox(seed))
    left_out = value + 0.05 * (COMMON - COMMON.mean()) + 0.05 * own * rng.normal(size=GROUPS)
    se = float(np.sqrt((GROUPS - 1) / GROUPS * np.square(left_out - left_out.mean()).sum()))
    reference = Reference("toy", "c", "test", "r", "i", 100)
    protocol = EvalProtocol(
        metric, 1, "pixels", "none", {}, reference, 100, "uniform", "jackknife", provenance={"seeds": [0, 100]}
    )
    return Score(
        f"{metric}[pixels]",
        value,
        (value - 2 * se, value + 2 * se),
        se,
        value,
        100,
        100,
        protocol,
        left_out=tuple(left_out),
    )


def told(values: Sequence[float], own: float = 0.0) -> tuple[str, bool | None]:
    return rises([[score(v, own, seed=i)] for i, v in enumerate(values)], [f"row {i}" for i in range(len(values))])


def test_shared_noise_cancels_in_pairs() -> None:
    """Intervals overlap, yet the difference of scores of the same seeds is certain."""
    a, b = score(1.0), score(1.01)
    assert a.interval[1] > b.interval[0]
    assert told([1.0, 1.01]) == ("yes, the intervals are apart (n = 100)", True)


def test_what_a_study_varies_may_differ_and_then_nothing_is_paired() -> None:
    """Scores of other protocols are refused, but for the fields that the rows are there to vary."""
    a, b, c = score(1.0), score(1.01), score(9.0)
    b, c = (replace(s, protocol=replace(s.protocol, class_prior="unconditional")) for s in (b, c))
    with pytest.raises(IncomparableError, match="class_prior"):
        rises([[a], [b]], "ab")
    assert rises([[a], [b]], "ab", ["class_prior"])[1] is None  # paired, these would be apart
    assert rises([[a], [c]], "ac", ["class_prior"])[1] is True
    with pytest.raises(IncomparableError):
        rises([[a], [replace(c, protocol=replace(c.protocol, extractor="other"))]], "ac", ["class_prior"])


def test_a_steady_rise_is_a_yes() -> None:
    assert told([1, 2, 3, 4], own=0.1) == ("yes, every neighbouring pair apart (n = 100)", True)


def test_a_rise_with_steps_inside_the_noise_is_a_yes_between_the_ends() -> None:
    words, holds = told([1, 1.01, 4], own=1)
    assert holds and words == "yes between the ends; 1 of 2 neighbouring pairs apart (n = 100)"


def test_one_certain_fall_is_a_no_and_is_named() -> None:
    words, holds = told([1, 3, 2], own=0.1)
    assert holds is False and words.startswith("no: row 2 scores 1 below row 1")


def test_a_difference_inside_the_noise_is_neither() -> None:
    assert told([1, 1.01], own=1) == ("not distinguishable at n = 100", None)
    assert told([1.01, 1], own=1)[1] is None


def outcomes_of(recipe: Recipe, values: dict[str, list[float]], metric: str = "FD") -> list[Outcome]:
    """Outcomes of rows -> value per training seed; NaN stands for a row that made none."""
    return [
        Outcome(
            Row(name, recipe, line="line", x=float(i)),
            seed,
            None,
            {} if value != value else {metric.lower(): score(value, 0.1, seed, metric)},
            {},
            "diverged" if value != value else "",
        )
        for i, (name, each) in enumerate(values.items())
        for seed, value in enumerate(each)
    ]


def study_of(outcomes: list[Outcome], *orderings: Ordering, metric: str = "fd") -> Study:
    rows = {o.row.name: o.row for o in outcomes}
    return Study(
        "mine",
        "tiny",
        "?",
        "-",
        "-",
        "x",
        tuple(rows.values()),
        (metric,),
        100,
        tuple(sorted({o.seed for o in outcomes})),
        orderings=orderings,
        ranked=True,
    )


def test_several_trainings_are_judged_by_the_interval_of_their_differences(tiny: Recipe) -> None:
    rising = Ordering("rises", ("a", "b"))
    agreed = outcomes_of(tiny, {"a": [1, 2, 3], "b": [3, 4, 5]})  # seeds differ, their differences do not
    verdict = verdicts(study_of(agreed, rising), agreed)[0]
    assert verdict.holds is True and "over 3 training seeds" in verdict.words and "3 of 3 seeds" in verdict.words
    assert verdict.spread is not None and verdict.spread.mean == pytest.approx(2) and verdict.budget == ""
    split = outcomes_of(tiny, {"a": [1, 4], "b": [3, 2]})
    verdict = verdicts(study_of(split, rising), split)[0]
    assert verdict.holds is None and "holds in 1 of 2 seeds and does not in 1" in verdict.words
    assert verdict.budget == "none: the difference is too near 0"


def test_agreeing_in_every_seed_does_not_replace_the_interval(tiny: Recipe) -> None:
    """Two seeds agree beyond their images, yet by 0.5 and 2.5: trainings differ by more than their mean tells."""
    found = outcomes_of(tiny, {"a": [1, 1], "b": [1.5, 3.5]})
    verdict = verdicts(study_of(found, Ordering("rises", ("a", "b"))), found)[0]
    assert verdict.holds is None and "holds in 2 of 2 seeds" in verdict.words
    # by hand: (2.262 + 0.883)^2 2 / 10 = 1.98 < 1.5^2, and (2.306 + 0.889)^2 2 / 9 = 2.27 is not
    assert verdict.budget.startswith("about 10 training seeds")
    assert verdict.spread is not None and verdict.spread.tau == pytest.approx(2**0.5, rel=0.1)
    assert verdict.to_json()["interval"] == list(verdict.spread.interval)


def test_one_training_needs_more_images_where_nothing_can_be_told() -> None:
    rows = {"a": [score(1, own=1, seed=0)], "b": [score(1.05, own=1, seed=1)]}
    verdict = answered(Ordering("rises", ("a", "b")), rows)
    assert verdict.holds is None and verdict.budget.endswith(" images") and "seeds" not in verdict.budget


def test_a_row_without_a_score_is_named(tiny: Recipe) -> None:
    found = outcomes_of(tiny, {"a": [1], "b": [float("nan")]})
    verdict = verdicts(study_of(found, Ordering("rises", ("a", "b"))), found)[0]
    assert verdict.holds is None and verdict.words == "not measured: b made no score"
    assert ranks(study_of(found), found) == {"a": 1}


@pytest.mark.parametrize(("metric", "best"), [("FD", "low"), ("precision", "high")])
def test_ranks_know_which_way_is_good_and_are_shared_where_trainings_disagree(
    tiny: Recipe, metric: str, best: str
) -> None:
    values = {"low": [-3, -3, -3], "mixed": [2, 4, 3], "other": [3, 3, 3], "high": [9, 9, 9]}
    found = outcomes_of(tiny, values, metric)
    rank = ranks(study_of(found, metric=metric.lower()), found)
    assert rank[best] == 1 and rank["mixed"] == rank["other"] == 2
    assert sorted(rank.values()) == [1, 2, 2, 4]


def test_means_over_trainings_keep_the_width_of_an_interval(tiny: Recipe) -> None:
    found = outcomes_of(tiny, {"a": [1, 3], "b": [5, 7]})
    cell = mean_cell([o.scores["fd"] for o in found[:2]])
    assert cell is not None and cell.interval is not None and cell.value == 2
    widths = [o.scores["fd"].interval[1] - o.scores["fd"].interval[0] for o in found[:2]]
    assert cell.interval[1] - cell.interval[0] == pytest.approx(sum(widths) / 2)
    line = series(found, "fd")["line"]
    assert (line.x, line.y) == ((0.0, 1.0), (2.0, 6.0))
