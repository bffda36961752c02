"""Rooms are found by name, and every mistake is answered with the rule, the value and the nearest remedy."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, Literal, get_type_hints

import numpy as np
import pytest

from sfumato import tasks
from sfumato.core.axes import AXES
from sfumato.core.find import (
    OptionError,
    UnknownNameError,
    check_options,
    conform,
    entries,
    find,
    hints_of,
    in_words,
    options_of,
    parse,
    summary,
)
from sfumato.core.gauge import Gauge
from sfumato.runs.recipe import Data, Ema, Evaluate, Recipe, Sample, Train
from sfumato.samplers.heun import heun

ROOMS = ["schedules", "grids", "draws", "weightings", "conditioning", "samplers", "guidance"]


@pytest.mark.parametrize("room", ROOMS)
def test_every_entry_says_what_it_is_in_one_line(room: str) -> None:
    found = entries(room)
    assert found
    for name, entry in found.items():
        line = summary(entry)
        assert line.endswith((".", ":")) or "." in line, f"{room}.{name}: {line!r}"
        assert line != "(undocumented)" and len(line) <= 120


@pytest.mark.parametrize("room", ROOMS)
def test_every_option_of_every_entry_is_typed(room: str) -> None:
    for name, entry in entries(room).items():
        untyped = [p.name for p in inspect.signature(entry).parameters.values() if p.annotation is p.empty]
        assert not untyped, f"{room}.{name}: {untyped}"


def test_names_are_found_with_dashes_or_underscores() -> None:
    assert find("sampler", "heun") is heun
    assert find("draw", "logit-normal") is find("draw", "logit_normal")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Unknown sampler 'huen'. Did you mean 'heun'\\? Available: .*ddim"):
        find("sampler", "huen")
    with pytest.raises(UnknownNameError, match="Unknown schedule 'cosin'. Did you mean 'cosine'"):
        find("schedule", "cosin")
    with pytest.raises(UnknownNameError) as error:
        find("weighting", "xyzxyz")
    assert "Did you mean" not in str(error.value) and "Available" in str(error.value)


def test_of_a_long_axis_a_message_shows_the_nearest_names_and_who_lists_all() -> None:
    with pytest.raises(UnknownNameError) as error:
        find("recipe", "edm-digit")
    said, known = str(error.value), entries("recipe")
    assert "Did you mean 'edm-digits'?" in said and f"`sfumato list recipe` shows all {len(known)}." in said
    assert sum(name in said for name in known) < 12


def test_private_and_imported_functions_are_no_entries() -> None:
    assert not any(name.startswith("-") for room in ROOMS for name in entries(room))
    assert "stratify" not in entries("draw") and "index-in" not in entries("draw")


FIXED = ("denoiser", "x", "grid", "noise", "label", "snap")


def test_options_are_those_with_defaults_that_nobody_fixes() -> None:
    assert list(options_of(heun, fixed=FIXED)) == ["gauge", "midpoint", "churn", "s_min", "s_max", "s_noise", "nsr_max"]


def test_options_are_checked_against_the_signature() -> None:
    got = check_options("sampler 'heun'", heun, {"churn": 40, "gauge": "flow", "nsr_max": None}, fixed=FIXED)
    assert got == {"churn": 40.0, "gauge": "flow", "nsr_max": None}
    assert type(got["churn"]) is float
    with pytest.raises(OptionError, match="Unknown option of sampler 'heun' 'chrn'. Did you mean 'churn'"):
        check_options("sampler 'heun'", heun, {"chrn": 40}, fixed=FIXED)
    with pytest.raises(OptionError, match="Unknown option of sampler 'heun' 'label'"):
        check_options("sampler 'heun'", heun, {"label": None}, fixed=FIXED)
    with pytest.raises(OptionError, match="sampler 'heun': churn must be a number; got 'much'"):
        check_options("sampler 'heun'", heun, {"churn": "much"}, fixed=FIXED)
    with pytest.raises(OptionError, match="gauge must be (ve, flow|flow, ve) or vp; got 'vpp'"):
        check_options("sampler 'heun'", heun, {"gauge": "vpp"}, fixed=FIXED)


@pytest.mark.parametrize(
    ("value", "hint", "want"),
    [
        (3, float, 3.0),
        (3, int, 3),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, 2], tuple[float, float], (1.0, 2.0)),
        (True, bool | float, True),
        (2, bool | float, 2.0),
        (None, int | None, None),
        ("a", Literal["a", "b"], "a"),
        ({"x": 1}, Any, {"x": 1}),
        (np.int64(3), int, 3),
        (np.float32(0.5), float, 0.5),
        (np.int64(3), float, 3.0),
        (np.bool_(True), bool, True),
    ],
)
def test_conform_accepts(value: object, hint: object, want: object) -> None:
    got = conform("field", value, hint)
    assert got == want and type(got) is type(want)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (True, int),
        (True, float),
        (3.5, int),
        ("3", int),
        (3, str),
        ([1, "a"], tuple[int, ...]),
        ([1, 2, 3], tuple[int, int]),
        (None, int),
        ("c", Literal["a", "b"]),
        (1, bool),
        (np.float64(3.0), int),
        (np.array([1, 2]), int),
    ],
)
def test_conform_refuses(value: object, hint: object) -> None:
    with pytest.raises(OptionError, match=r"field must be .*; got"):
        conform("field", value, hint)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-2", -2),
        (" 1e-3 ", 0.001),
        ("inf", float("inf")),
        ("True", True),
        ("none", None),
        ("1,2,2", (1, 2, 2)),
        ("16,", (16,)),
        ("[]", ()),
        ("(0.5,1)", (0.5, 1)),
        ("power-0.10", "power-0.10"),
        ("", ""),
    ],
)
def test_parse(text: str, value: object) -> None:
    assert parse(text) == value


PYTHON = re.compile(r"[\[\]<>|']|typing|Union|Literal|Optional|NoneType|\b(int|float|bool|str)\b")


@pytest.mark.parametrize("axis", AXES)
def test_every_type_is_said_in_words(axis: str) -> None:
    """Whatever a person may set is described without a word of Python's typing."""
    for name, entry in entries(axis).items():
        hints = hints_of(entry)
        for option in options_of(entry, fixed=AXES[axis].fixed):
            said = in_words(hints[option])
            assert said and not PYTHON.search(said), (name, option, said)


@pytest.mark.parametrize("kind", [Recipe, Data, Train, Ema, Sample, Evaluate])
def test_every_field_is_said_in_words(kind: type) -> None:
    for name, hint in get_type_hints(kind).items():
        assert not PYTHON.search(in_words(hint)), name


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Literal["ve", "flow", "vp"] | Gauge, "ve, flow or vp"),
        (float, "a number"),
        (int | None, "a whole number or none"),
        (tuple[float, float] | None, "two numbers or none"),
        (bool | float, "true, false or a number"),
        (tuple[str | int, ...], "texts or whole numbers with commas"),
        (str | Path, "text or a path"),
        (Gauge, "a Gauge"),
    ],
)
def test_types_are_said_as_a_person_writes_them(hint: Any, words: str) -> None:
    assert in_words(hint) == words


def test_an_entry_without_options_says_so() -> None:
    def plain() -> None:
        """Take nothing."""

    with pytest.raises(OptionError, match="weighting 'x0' takes no options"):
        check_options("weighting 'x0'", plain, {"a": 1})


def test_what_is_found_may_be_changed_by_who_asked() -> None:
    """The parts are looked up once; each who asks gets a dictionary of its own."""
    first = entries("sampler")
    first.clear()
    assert find("sampler", "heun") is heun and entries("samplers")["heun"] is heun
    with pytest.raises(TypeError):
        hints_of(heun)["x"] = int  # type: ignore[index]


def test_a_folder_added_to_an_axis_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its parts are gone with it, though the parts of the axis were looked up before."""
    before = list(entries("task"))
    (tmp_path / "fog.py").write_text('def fog(shape):\n    """Hide a picture in fog."""\n')
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
        assert [*entries("task")] == sorted([*before, "fog"])
    assert list(entries("task")) == before
