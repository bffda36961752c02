"""The studies of clusters and of representation, run at their smallest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sfumato.experiments.cost import estimate
from sfumato.experiments.study import find_study
from sfumato.experiments.verdict import verdicts
from sfumato.experiments.work import carry_out
from sfumato.runs.override import override

pytest.importorskip("sklearn")
SHORT = ("train.images=64", "train.batch=32", "sample.grid.steps=2")


def test_clusters_takes_three_numbers_of_clusters_between_nothing_and_classes() -> None:
    study = find_study("clusters", "tiny")
    told = [row.recipe.data.labels for row in study.rows]
    assert told[0] is False and told[1] is told[2] is True
    assert [str(labels) for labels in told[3::2]] == [f"clusters(count={k}, features=digits)" for k in (5, 10, 20)]


@pytest.mark.slow
def test_the_cost_of_a_study_is_counted_where_its_recipes_state_no_shape() -> None:
    study = find_study("clusters", "tiny")
    rows = tuple(replace(row, recipe=replace(row.recipe, shape=None)) for row in study.rows)
    assert estimate(replace(study, rows=rows)).calls == estimate(study).calls


def test_clusters_are_asked_for_as_often_as_they_occur_and_found_again(tmp_path: Path) -> None:
    study = find_study("clusters", "tiny")
    rows = tuple(replace(row, recipe=override(row.recipe, SHORT)) for row in study.rows)
    outcomes = carry_out(replace(study, rows=rows, n=40, metrics=("kid",), orderings=()).only(
        ["unlabelled", "10 clusters", "10 clusters, guided"]), tmp_path, quiet=True, device="cpu")  # fmt: skip
    assert not any(outcome.failed for outcome in outcomes)
    priors = [outcome.scores["kid"].protocol.class_prior for outcome in outcomes]
    assert priors == ["unconditional", "training", "training"]
    asked = tuple(replace(ordering, metric="kid") for ordering in study.orderings[:2])
    answers = verdicts(replace(study, orderings=asked, n=40, metrics=("kid",)), outcomes)
    assert [answer.spread is not None for answer in answers] == [True, True]
    again = carry_out(
        replace(study, rows=rows, n=40, metrics=("kid",), orderings=()).only(["10 clusters"]), tmp_path, quiet=True
    )
    assert again[0].scores["kid"].value == outcomes[1].scores["kid"].value  # the trained run is found again


def test_representation_probes_each_run_once() -> None:
    study = find_study("representation", "tiny")
    assert len({row.trained for row in study.rows}) == len(study.rows) == 2
    assert len(find_study("representation", "cpu").rows) >= 8


@pytest.mark.slow
def test_representation_prints_what_it_reads(tmp_path: Path) -> None:
    study = find_study("representation", "tiny")
    rows = tuple(replace(row, recipe=override(row.recipe, SHORT[:2])) for row in study.rows[1:])
    small = replace(study, rows=rows, n=40, metrics=("kid",), orderings=())
    (outcome,) = carry_out(small, tmp_path, quiet=True, device="cpu")
    assert (
        set(outcome.facts["figures"]) == {"probe", "above PCA", "pixels"} and "middle at 0.1" in outcome.facts["probed"]
    )
    value, low, high = outcome.facts["figures"]["probe"]
    assert 0 <= low < value < high <= 1 and "kid" in outcome.scores
