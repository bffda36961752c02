"""Words on the command line: both forms of a field, order, seeds, classes, and what is refused."""

from __future__ import annotations

import pytest

from sfumato.cli._arguments import arrange, find_recipe, resettle, seed_list
from sfumato.cli._main import commands
from sfumato.core.find import OptionError
from sfumato.runs.override import override
from sfumato.runs.recipe import RecipeError

TRAIN = commands()["train"]


@pytest.mark.parametrize(
    "words",
    [
        ["edm-digits", "train.batch=8", "sample.sampler=ddim", "--out", "x"],
        ["edm-digits", "--train.batch", "8", "--out", "x", "--sample.sampler", "ddim"],
        ["--out", "x", "--train.batch=8", "edm-digits", "--sample.sampler=ddim"],
        ["--out=x", "edm-digits", "train.batch=8", "--sample.sampler", "ddim"],
    ],
)
def test_both_forms_of_a_field_in_any_order_say_the_same(words: list[str]) -> None:
    arranged = arrange(TRAIN, words)
    assert arranged[:3] == ["edm-digits", "train.batch=8", "sample.sampler=ddim"]
    assert " ".join(arranged[3:]).replace("=", " ") == "--out x"


def test_values_of_options_are_left_alone() -> None:
    assert arrange(TRAIN, ["r", "--out", "a=b"]) == ["r", "--out", "a=b"]
    allowed = arrange(TRAIN, ["--allow", "train.images", "train.batch", "train.batch=4", "--quiet", "r"])
    assert allowed == ["r", "train.batch=4", "--allow", "train.images", "train.batch", "--quiet"]
    assert arrange(TRAIN, ["r", "--train.clip", "-1"]) == ["r", "train.clip=-1"]


@pytest.mark.parametrize("words", [["--train.batch"], ["--train.batch", "--quiet"]])
def test_a_field_without_a_value_is_refused(words: list[str]) -> None:
    with pytest.raises(OptionError, match="needs a value: --train.batch VALUE, or train.batch=VALUE"):
        arrange(TRAIN, ["r", *words])


def test_a_mistyped_option_names_the_nearest_option_or_field() -> None:
    with pytest.raises(OptionError, match="Unknown option '--devise'. Did you mean '--device'"):
        arrange(TRAIN, ["r", "--devise", "cpu"])
    with pytest.raises(OptionError, match="Unknown option '--schedul'. Did you mean '--schedule'"):
        arrange(TRAIN, ["r", "--schedul", "cosine"])


@pytest.mark.parametrize(
    ("text", "n", "seeds"),
    [(None, None, [0, 1, 2]), (None, 2, [0, 1]), ("5", None, [5]), ("2:4", None, [2, 3]), ("0:2, 7", 3, [0, 1, 7])],
)
def test_seeds(text: str | None, n: int | None, seeds: list[int]) -> None:
    assert seed_list(text, n, 3) == seeds


@pytest.mark.parametrize(
    ("text", "n", "words"),
    [
        ("3:3", None, "Seeds read 0:64"),
        ("-1", None, "Seeds read 0:64"),
        ("a", None, "got 'a'"),
        ("0:4,2", None, "distinct"),
        ("0:4", 3, "are 4 seeds, but --n asks for 3"),
        (None, 0, "at least 1; got 0"),
    ],
)
def test_bad_seeds_are_refused(text: str | None, n: int | None, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        seed_list(text, n, 64)


def test_a_trained_run_is_resettled_in_its_sampling_fields_only() -> None:
    recipe = find_recipe("edm-digits")
    assert resettle(recipe, ["guidance=2"], ("sample",)) == override(recipe, ["sample.guidance=2"])
    assert resettle(recipe, ["sample.guidance=2"], ("sample",)) == override(recipe, ["sample.guidance=2"])
    changed = resettle(recipe, ["sampler=ddim", "sampler.eta=1"], ("sample",))
    assert changed.train == recipe.train and changed.sample.sampler.options == {"eta": 1.0}
    with pytest.raises(RecipeError, match="train.batch belongs to training"):
        resettle(recipe, ["train.batch=4"], ("sample",))
    with pytest.raises(RecipeError, match="evaluate.n belongs"):
        resettle(recipe, ["evaluate.n=4"], ("sample",))
    with pytest.raises(RecipeError, match="Unknown field 'samler'. Did you mean 'sampler'"):
        resettle(recipe, ["samler.guidance=4"], ("sample",))
