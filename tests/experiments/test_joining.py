"""Results of other training seeds join a study as if all had been made together; anything else is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sfumato.cli import main
from sfumato.core.reading import FileRefusedError
from sfumato.experiments import cost
from sfumato.experiments.cost import estimate
from sfumato.experiments.figures import sheets, shown
from sfumato.experiments.joining import joined
from sfumato.experiments.pages import lines, write
from sfumato.experiments.study import Ordering, Row, Study, StudyError
from sfumato.experiments.summary import results_of
from sfumato.experiments.verdict import verdicts
from sfumato.experiments.work import carry_out
from sfumato.report.table import csv_table
from sfumato.runs.override import override
from sfumato.studies._bases import edm


@pytest.fixture(scope="module")
def study() -> Study:
    recipe = override(edm("tiny"), ["train.images=32", "train.batch=16", "sample.grid.steps=3", "data.first=64"])
    rows = (Row("two", recipe, ("sample.grid.steps=2",), run="r"), Row("three", recipe, run="r"))
    claim = Ordering("fewer are worse", ("three", "two"), "kid")
    return Study("mine", "tiny", "How many steps?", "steps", "all else", "", rows, ("kid",), 40, orderings=(claim,))


@pytest.fixture(scope="module")
def made(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeds 0, and 1 and 2, each in a folder of its own, and all three together."""
    where = tmp_path_factory.mktemp("joined")
    for name, seeds in (("apart", (0,)), ("others", (1, 2)), ("whole", (0, 1, 2))):
        sized = study.resized(seeds=seeds)
        outcomes = carry_out(sized, where / name, runs=where / "runs", device="cpu", quiet=True)
        write(sized, outcomes, estimate(sized), where / name, "a command")
    return where


def at(study: Study, where: Path, *seeds: int):  # noqa: ANN201 - what `carry_out` returns
    sized = study.resized(seeds=seeds)
    return sized, carry_out(sized, where / "apart", runs=where / "runs", device="cpu", quiet=True)


def test_seeds_made_apart_give_the_table_and_the_answers_of_all_together(study: Study, made: Path) -> None:
    mine, outcomes = at(study, made, 0)
    found, all_of_them = joined(mine, outcomes, results_of(made / "others"))
    whole = study.resized(seeds=(0, 1, 2))
    right = carry_out(whole, made / "whole", runs=made / "runs", device="cpu", quiet=True)
    assert found.seeds == (0, 1, 2)
    assert [(o.row.name, o.seed) for o in all_of_them] == [(o.row.name, o.seed) for o in right]
    weights = estimate(whole).parameters
    assert csv_table(lines(found, all_of_them, weights)) == csv_table(lines(whole, right, weights))
    assert [a.to_json() for a in verdicts(found, all_of_them)] == [a.to_json() for a in verdicts(whole, right)]


def test_the_sheet_is_of_a_seed_whose_runs_are_here(study: Study, made: Path) -> None:
    mine, outcomes = at(study, made, 0)
    alone = np.asarray(sheets(mine, outcomes)["sheet"])
    elsewhere = [replace(o, seed=-1, run=None) for o in outcomes]  # the first seed, made on another machine
    both = [*elsewhere, *outcomes]
    assert [(o.row.name, run.path.name) for o, run in shown(both)] == [("two", "r-seed0"), ("three", "r-seed0")]
    drawn = np.asarray(sheets(study.resized(seeds=(-1, 0)), both)["sheet"])
    assert np.array_equal(drawn[:100], alone[:100])
    assert not sheets(study, elsewhere) and not shown([])


def test_rows_made_apart_join_too(study: Study, made: Path, tmp_path: Path) -> None:
    first = changed(made, tmp_path / "a", lambda tree: tree.update(rows=tree["rows"][::2]))
    second = changed(made, tmp_path / "b", lambda tree: tree.update(rows=tree["rows"][1::2]))
    found, outcomes = joined(*at(study, made, 0), [*first, *second])
    whole, right = joined(*at(study, made, 0), results_of(made / "others"))
    assert [a.to_json() for a in verdicts(found, outcomes)] == [a.to_json() for a in verdicts(whole, right)]


def changed(made: Path, folder: Path, change) -> list[dict]:  # noqa: ANN001 - a function of the tree
    shutil.copytree(made / "others", folder / "others", ignore=shutil.ignore_patterns("results"))
    file = folder / "others" / "mine.json"
    tree = json.loads(file.read_text())
    change(tree)
    file.write_text(json.dumps(tree))
    return results_of(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree.update(n=41), "the same n, 40; got 41"),
        (lambda tree: tree.update(metrics=["fd"]), "the same metrics"),
        (lambda tree: tree["rows"][0].update(seed=0), "row .two. of seed 0, which is here too"),
        (lambda tree: tree["rows"].pop(0), "No result of row 'two' of seed 1"),
        (lambda tree: tree["rows"][0]["facts"].update(recipe="0123"), "it is of 0123"),
        (lambda tree: tree["rows"][0]["facts"].pop("recipe"), "it is of none named"),
        (lambda tree: tree["rows"][3]["scores"]["kid"]["protocol"].update(n=39, protocol_id=None), "has the protocol"),
    ],
)
def test_what_is_not_another_seed_of_the_same_is_refused(
    study: Study, made: Path, tmp_path: Path, change, words: str
) -> None:
    with pytest.raises(StudyError, match=words):
        joined(*at(study, made, 0), changed(made, tmp_path, change))


def test_another_recipe_under_the_same_name_is_refused(study: Study, made: Path) -> None:
    mine, outcomes = at(study, made, 0)
    run = outcomes[0].run
    assert run is not None
    wider = run.with_recipe(override(run.recipe, ["ema.use=raw"]))
    with pytest.raises(StudyError, match="must be of the recipe"):
        joined(mine, [replace(o, run=wider) for o in outcomes], results_of(made / "others"))


def test_a_damaged_result_is_named(study: Study, made: Path, tmp_path: Path) -> None:
    results = changed(made, tmp_path, lambda tree: tree.update(rows=[3]))
    with pytest.raises(FileRefusedError, match="mine.json"):
        joined(*at(study, made, 0), results)


def test_the_command_line_refuses_a_file_that_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.json").write_text("{}")
    assert main(["study", "samplers", "--scale", "tiny", "--join", str(tmp_path)]) == 2
    assert "--join names results" in capsys.readouterr().err


def test_what_cannot_join_is_refused_before_anything_is_trained(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two files one holds nothing, or the result is of another study: no cost is counted, no run begins."""
    monkeypatch.setattr(cost, "estimate", None)
    (tmp_path / "empty.json").write_text("{}")
    for files, words in (
        ([made / "others" / "mine.json", tmp_path / "empty.json"], "empty.json holds none"),
        ([made / "others" / "mine.json"], "the same name, samplers; got mine"),
    ):
        assert main(["study", "samplers", "--scale", "tiny", "--join", *map(str, files)]) == 2
        assert words in capsys.readouterr().err
