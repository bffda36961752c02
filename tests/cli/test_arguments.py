"""Words on the command line: both forms of a field, order, seeds, classes, and what is refused."""

from __future__ import annotations

import functools
import inspect
import shlex
import typing

import pytest
import tyro

from sfumato.cli._arguments import MACHINE, again, arrange, find_recipe, resettle, seed_list
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


def test_an_option_that_is_given_again_loses_nothing() -> None:
    """The parser would keep the last: `--allow a --allow b` allowed b alone."""
    words = ["r", "--allow", "train.images", "--quiet", "--allow=train.batch", "--quiet"]
    assert arrange(TRAIN, words) == ["r", "--allow", "train.images", "train.batch", "--quiet"]
    for twice in (["--out", "a", "--out", "b"], ["-o", "a", "--out=b"], ["--minutes", "1", "--minutes", "1"]):
        with pytest.raises(OptionError, match="is given twice, and the second would replace the first"):
            arrange(TRAIN, ["r", *twice])


@pytest.mark.parametrize("words", [["--train.batch"], ["--train.batch", "--quiet"]])
def test_a_field_without_a_value_is_refused(words: list[str]) -> None:
    with pytest.raises(OptionError, match="needs a value: --train.batch VALUE, or train.batch=VALUE"):
        arrange(TRAIN, ["r", *words])


def some(hint: object) -> object:
    """Return a value of a parameter's type that is not the usual one."""
    args = [arg for arg in typing.get_args(hint) if arg not in (type(None), ...)]
    if typing.get_origin(hint) is tuple:
        return (some(args[0]), some(args[0]))
    if typing.get_origin(hint) is typing.Literal:
        return args[-1]
    return {int: 7, float: 0.125, bool: True, str: "it's a"}[args[0] if args else hint]


@pytest.mark.parametrize("name", commands())
def test_a_recorded_command_holds_every_option(name: str) -> None:
    command, taken = commands()[name], {}
    values = {key: some(hint) for key, hint in typing.get_type_hints(command).items() if key != "return"}
    values |= {key: ("a=1", "b=2") for key in ("overrides", "recipes") if key in values}

    @functools.wraps(command)
    def stand_in(*args: object, **options: object) -> None:
        taken.update(inspect.signature(command).bind(*args, **options).arguments)

    said = shlex.split(again(command, values))
    tyro.cli(stand_in, args=arrange(command, said[2:]), config=(tyro.conf.FlagCreatePairsOff,))
    assert said[:2] == ["sfumato", name]
    assert {key: taken[key] for key in values if key not in MACHINE} == {
        k: v for k, v in values.items() if k not in MACHINE
    }
    usual = {k: p.default for k, p in inspect.signature(command).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert not [word for word in shlex.split(again(command, values | usual)) if word.startswith("--")]


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
    with pytest.raises(RecipeError, match="Write grid.steps=9."):
        resettle(recipe, ["steps=9"], ("sample",))


IDLE = {  # words, and the options that would say nothing there
    "sample RUN --n 1 --images OUT --strip --out x.png": "--out and --strip",
    "restore RUN task=inpaint --score 2 --damaged": "--damaged",
    "edit RUN picture.png --encode-as 1 --strength 0.5": "--strength",
    "likelihood RUN --parts ode --steps 10": "--steps",
    "likelihood RUN --parts vlb --gauge ve --tolerance 1e-3": "--tolerance and --gauge",
    "compress RUN --n 2 --classes 1": "--classes",
    "compress RUN picture.png --split train": "--split",
    "ema RUN --width 0.1 --n 100": "--n",
    "ema RUN guidance=2 --width 0.1": "guidance=2",
    "export RUN --private": "--private",
    "plot schedules --schedule cosine": "--schedule",
    "plot grids --power 1": "--power",
    "explain edm-digits --out OUT": "--out",
    "explain all --classes 3": "--classes",
    "explain edm-digits flow-digits --beside 3": "--beside",
    "explain edm-digits --about train --classes 3": "--classes",
    "study samplers --scale tiny --cluster-options timeout_min=60": "--cluster-options",
    "data check OUT --skip-bad": "--skip-bad",
    "data check OUT other.zip": "other.zip",
    "data show digits --no-numbers": "--no-numbers",
}


@pytest.mark.parametrize("words", IDLE)
def test_an_option_without_a_use_is_refused(cli, tmp_path, words):
    """Passed over in silence, it would leave a person with another result than was asked for."""
    out = tmp_path / "out"
    said = cli(*words.replace("RUN", str(tmp_path / "run")).replace("OUT", str(out)).split())
    assert said.code == 2 and f"makes no use of {IDLE[words]}. Leave" in said.err
    assert not out.exists()
