"""A search finds a known optimum, goes on after a kill as if there had been none, and marks what it chose."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

import sfumato as sf
from sfumato.cli import main
from sfumato.core.find import OptionError
from sfumato.evaluation.judge import Judge
from sfumato.experiments import search as engine
from sfumato.experiments.search import Search, Trial
from sfumato.experiments.search_space import Dimension, space_of
from sfumato.recipes.digits import edm_digits
from sfumato.runs.override import override, recipe_named
from sfumato.runs.recipe import Recipe, RecipeError
from sfumato.runs.records import append_record
from sfumato.training import loop

pytest.importorskip("optuna")
SMALL = ("train.images=144", "train.rate=constant", "ema.half_life=()", "evaluate.extractor=pixels", "train.batch=8")


@pytest.fixture(scope="module")
def base(tiny: Recipe) -> Recipe:
    return override(tiny, SMALL)


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("train.optimizer.lr=1e-4..1e-2", Dimension("train.optimizer.lr", 1e-4, 1e-2, log=True)),
        ("train.optimizer.lr=0..0.1", Dimension("train.optimizer.lr", 0.0, 0.1)),
        ("train.optimizer.lr=0.01..0.02", Dimension("train.optimizer.lr", 0.01, 0.02)),
        ("train.optimizer.lr=log:0.01..0.02", Dimension("train.optimizer.lr", 0.01, 0.02, log=True)),
        ("train.optimizer.lr=1..2", Dimension("train.optimizer.lr", 1.0, 2.0)),
        ("network.blocks=1..3", Dimension("network.blocks", 1.0, 3.0, whole=True)),
        ("train.rate=constant,cosine", Dimension("train.rate", values=("constant", "cosine"))),
        ("network.mult=[1,1],[1,2]", Dimension("network.mult", values=("[1,1]", "[1,2]"))),
    ],
)
def test_a_word_is_a_range_or_a_list(base: Recipe, word: str, found: Dimension) -> None:
    shared, space = space_of(base, [word, "train.batch=16"])
    assert space == [found] and shared.train.batch == 16


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train.optimiser.lr=1e-4..1e-2",), "Unknown field 'optimiser'. Did you mean 'optimizer'?"),
        (("train.optimizer.lr=0.1..0.01",), "goes from a lower to a higher finite number"),
        (("train.optimizer.lr=0.1..0.1",), "goes from a lower to a higher finite number"),
        (("train.optimizer.lr=0..inf",), "goes from a lower to a higher finite number"),
        (("train.optimizer.lr=log:0..1",), "A logarithmic range begins above 0"),
        (("train.optimizer.lr=a..b",), "A range reads LOW..HIGH with two numbers"),
        (("train.optimizer.lr=-1..1",), "train.optimizer.lr must be"),
        (("train.rate=constant,cosinus",), "Did you mean 'cosine'?"),
        (("schedule=vp,cosine",), "nothing in this recipe reads schedule"),
        (("train.images=100..200",), "train.images is the same for all"),
        (("data.size=4,8",), "data is the same for all"),
        (("train.seed=0..9",), "train.seed is the same for all"),
        (("train.batch=8,16", "train.batch=32..64"), "takes each field once; got train.batch twice"),
        (("train.batch=16",), "A search needs a field with a range or values"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_any_training(
    base: Recipe, words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ValueError) as refused:  # RecipeError, OptionError or UnknownNameError
        space_of(base, words)
    assert said in str(refused.value)


def test_values_of_a_narrow_range_stay_apart_and_inside_it() -> None:
    near = Dimension("ema.half_life", 1.00001, 1.00002)
    words = {near.assigned(1.00001 + 1e-8 * k) for k in range(1001)}
    assert len(words) > 100 and all(1.00001 <= float(word.split("=")[1]) <= 1.00002 for word in words)
    assert Dimension("a", 0.001, 0.1).assigned(0.0123456) == "a=0.01235"  # as before
    assert Dimension("a", 1e-9, 1.0, log=True).assigned(1.23456e-7) == "a=1.235e-07"


def test_test_images_never_choose(base: Recipe) -> None:
    space = (Dimension("train.batch", values=("8", "16")),)
    with pytest.raises(OptionError, match="judged by training images.*got test"):
        Search(base, space, split="test")
    with pytest.raises(OptionError, match="Neither more nor less of saturation is better"):
        Search(base, space, metric="saturation")


@pytest.fixture(scope="module")
def found(base: Recipe, tmp_path_factory: pytest.TempPathFactory) -> sf.api.Searched:
    """Learning rate 0 against one that learns: four trials."""
    folder = tmp_path_factory.mktemp("search")
    return sf.search(base, ["train.optimizer.lr=0.0,0.004"], folder, trials=4, n=40, device="cpu")


def test_the_known_optimum_is_found(found: sf.api.Searched) -> None:
    """A model that learns nothing is worse than one that learns; and it says among how many it was chosen."""
    assert found.recipe.train.optimizer.options["lr"] == 0.004
    rates = {trial.values["train.optimizer.lr"] for trial in found.trials}
    assert rates == {"0.0", "0.004"} and len(found.trials) == 4
    best = {rate: min(t.last for t in found.trials if t.values["train.optimizer.lr"] == rate) for rate in rates}
    assert best["0.004"] < best["0.0"]
    chosen = found.recipe.chosen
    assert chosen is not None and (chosen.candidates, chosen.n, chosen.split) == (4, 40, "train")
    assert recipe_named(str(found.file)) == found.recipe
    assert found.draw().stat().st_size > 1000


def test_every_later_score_says_that_the_recipe_was_chosen(found: sf.api.Searched) -> None:
    for split, where in (("test", "on train images"), ("train", "on this reference")):
        notes = Judge.of(found.recipe, split).notes
        assert any(f"best of 4 tried, chosen by FD[pixels] {where} (n = 40)" in note for note in notes), notes
    assert not Judge.of(edm_digits(), "test").notes


def test_bad_trials_stop_early(found: sf.api.Searched) -> None:
    """The first is trained to the end; one that is not among the best third at a rung ends there."""
    assert found.trials[0].end == "done" and sorted(found.trials[0].scores) == [1, 3, 9]
    for i, trial in enumerate(found.trials):
        rung = max(trial.scores)
        before = [t.scores[rung] for t in found.trials[:i] if rung in t.scores]
        if trial.end == "stopped":
            assert rung < 9 and sum(score < trial.last for score in before) >= max(1, (len(before) + 1) // 3)


class Killed(BaseException):
    """As a signal ends a process: nothing catches it."""


@pytest.mark.slow
def test_a_killed_search_ends_as_one_that_was_not(
    base: Recipe, found: sf.api.Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the third trial; then it goes on with the same trials, scores and choice."""
    calls, real = [], loop.train

    def killed(*words: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            (tmp_path / "trial" / "checkpoints").mkdir(parents=True)
            raise Killed
        return real(*words, **options)

    asked = (base, ["train.optimizer.lr=0.0,0.004"], tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(engine, "train", killed)
        with pytest.raises(Killed):
            sf.search(*asked, trials=4, n=40, device="cpu")
    assert len((tmp_path / "trials.jsonl").read_text().splitlines()) == 2
    again = sf.search(*asked, trials=4, n=40, device="cpu")
    assert [(t.values, t.scores, t.end) for t in again.trials] == [(t.values, t.scores, t.end) for t in found.trials]
    assert again.recipe == found.recipe
    assert not (tmp_path / "trial").exists()


def test_a_trial_of_minutes_is_scored_when_they_are_over(base: Recipe, tmp_path: Path) -> None:
    timed = override(base, ["train.minutes=0.03"])
    found = sf.search(timed, ["train.optimizer.lr=0.0,0.004"], tmp_path, trials=1, n=40, device="cpu")
    assert found.trials[0].end == "done" and 9 in found.trials[0].scores


def test_another_search_in_the_same_folder_is_refused(found: sf.api.Searched, base: Recipe) -> None:
    with pytest.raises(RecipeError, match="holds another search.*\n.*n: 40 -> 50"):
        sf.search(base, ["train.optimizer.lr=0.0,0.004"], found.file.parent, trials=4, n=50)


def test_a_line_that_is_no_trial_costs_that_line(found: sf.api.Searched, tmp_path: Path) -> None:
    whole = (found.file.parent / "trials.jsonl").read_text().splitlines()
    first = json.loads(whole[0])
    damaged: list[object] = [
        {"seconds": 1},
        {**first, "values": {}},
        {**first, "interval": [1]},
        {**first, "interval": [2, 1]},
        {**first, "seconds": math.nan},
        {**first, "scores": []},
        {**first, "end": "done", "scores": {"1": 0.5}},
        {**first, "end": "done", "scores": {"9": math.nan}},
    ]
    damaged += [{**first, "values": dict.fromkeys(first["values"], "none of them")}, {**first, "rungs": {"a": "b"}}]
    (tmp_path / "trials.jsonl").write_text("\n".join([*whole, *map(json.dumps, damaged)]) + "\n")
    with pytest.warns(UserWarning, match="no trial of this search"):
        read = engine._trials(found.search, tmp_path / "trials.jsonl")
    assert read == list(found.trials)


def test_a_trial_after_a_line_that_was_cut_is_kept(found: sf.api.Searched, tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    file.write_bytes((found.file.parent / "trials.jsonl").read_bytes() + b'{"values": {"tr')
    append_record(file, asdict(found.trials[0]))
    with pytest.warns(UserWarning, match="damaged in line"):
        assert engine._trials(found.search, file) == [*found.trials, found.trials[0]]


def test_trials_of_other_images_are_not_mixed(found: sf.api.Searched, base: Recipe, monkeypatch) -> None:
    of_today = engine.judged_by

    def changed(*asked: object) -> dict[str, object]:
        return of_today(*asked) | {"order": "another"}

    monkeypatch.setattr(engine, "judged_by", changed)
    with pytest.raises(RecipeError, match="holds another search.*\n.*data.order: "):
        sf.search(base, ["train.optimizer.lr=0.0,0.004"], found.file.parent, trials=4, n=40)


def test_a_search_without_a_whole_trial_says_why(base: Recipe) -> None:
    search = Search(base, (Dimension("train.batch", values=("8", "16")),))
    lost = Trial({"train.batch": "8"}, {}, (0.0, 0.0), "failed: it was not finite", 1.0, {})
    with pytest.raises(RecipeError, match="No trial was trained to the end: failed: it was not finite. Give more"):
        engine.best_of(search, [lost])


@pytest.mark.slow
def test_the_command_prints_the_table_and_its_file_is_trained(
    found: sf.api.Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A search that has all its trials is told again without any training."""
    monkeypatch.chdir(tmp_path)
    search = json.loads((found.file.parent / "search.json").read_text())
    (tmp_path / "base.json").write_text(json.dumps(search["recipe"]))
    words = ["search", "base.json", "train.optimizer.lr=0.0,0.004", "--trials", "4", "--n", "40"]
    assert main([*words, "--out", str(found.file.parent), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "of the importance: train.optimizer.lr" in said and f"Next: sfumato train {found.file}" in said
    few = ["train.images=16", "--device", "cpu", "--quiet"]
    assert main(["train", str(found.file), *few]) == 0
    run = tmp_path / "runs" / found.file.stem
    assert json.loads((run / "recipe.json").read_text())["recipe"]["chosen"]["candidates"] == 4
    assert main(["search", "edm-digits", "train.optimizer.lr=1..0.1"]) == 2
    (tmp_path / "none.json").write_text("[1]")
    assert main(["train", "none.json"]) == 2
