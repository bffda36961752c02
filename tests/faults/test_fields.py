"""Refused before the first step, or trained: every field of a recipe, every option of every part, odd values."""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.faults.fields import EDM, drawn, fate, fields, home, options, parts, small, values_of

from sfumato.core.bounds import ANY, Bounds, bounds_of
from sfumato.core.find import entries
from sfumato.runs.check_numbers import check_numbers

BUDGET = ("train.images", "train.epochs", "train.minutes")  # a long training is no fault
COMPILED = "train.compile=on"  # a minute of a compiler's time
MANY = 120


def said(path: str) -> tuple[str, ...]:
    """Return the words of which a refusal of a field must hold one."""
    last = path.split(".")[-1]
    also = {
        "data.name": ("dataset", "Shape"),
        "data.attributes": ("attribute",),
        "data.classes": ("class",),
        "data.pad": ("Padding",),
    }
    return (last, last.replace("_", "-"), path, *also.get(path, ()))


def values(path: str, hint: Any) -> Iterator[str]:
    for value in values_of(hint):
        if (path not in BUDGET or value in ("-1", "0", "nan", "inf")) and f"{path}={value}" != COMPILED:
            yield value


@dataclass(frozen=True)
class Spot:
    """Where a value stands.

    Attributes:
        words: The recipe and its fields, all but the last.
        path: The field.
        hint: Its type; a part's own name has none.
        names: A refusal holds one of them.
        before: The title up to the value.
    """

    words: tuple[str, ...]
    path: str
    hint: Any
    names: tuple[str, ...]
    before: str = ""

    def trial(self, value: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """Return the title, the words and the names of a trial."""
        return f"{self.before}{self.path}={value}", (*self.words, f"{self.path}={value}"), self.names


def spots() -> Iterator[Spot]:
    """Yield every field and every option of every part."""
    for path, hint in fields():
        yield Spot(EDM, path, hint, said(path))
    for path, axis, name in parts():
        for option, hint in options(axis, name):
            named = (*said(f"{path}.{option}"), path, f"{axis}={name}")
            yield Spot((path, name, *small(path, name)), f"{path}.{option}", hint, named, f"{path}={name} ")


def cases() -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Yield a title, the words of the recipe, and the names of which a refusal holds one."""
    for path, axis, name in parts():
        yield f"{path}={name}", (path, name, *small(path, name)), (path.split(".")[-1], axis)
    yield from (spot.trial(value) for spot in SPOTS for value in values(spot.path, spot.hint))


def words_of(words: tuple[str, ...]) -> tuple[str, ...]:
    return words if words[0] == EDM[0] else (*home(*words[:2]), *words[2:])


SPOTS = list(spots())
CASES = {title: (words, names) for title, words, names in cases()}
# from use, and one of each way of going wrong
KNOWN = [
    *("train.rate=linear train.rate.hold=1", "train.rate=linear train.rate.hold=1.5", "ema.half_life=0"),
    *("train.optimizer=adam train.optimizer.lr=-1", "train.optimizer=adam train.optimizer.beta1=1"),
    *("train.seed=18446744073709551616", "network=unet network.dropout=1", "sample.grid=uniform sample.grid.t_min=1"),
    *("schedule=linear schedule.steps=1", "sample.grid=respaced sample.grid.steps=1", "data.name="),
    *("sample.sampler=heun sample.sampler.midpoint=0", "data.pad=1000000000000", "train.batch=1000000000000"),
    *("evaluate.quick=1", "network=condnorm-unet network.conditioning=3", "train.optimizer=adam train.optimizer.eps=0"),
    *("train.start=nosuch", "schedule=sigmoid schedule.tau=1e30"),
]


def judge(title: str, words: tuple[str, ...], names: tuple[str, ...], folder: Path) -> None:
    found = fate(words_of(words), folder / "run", names)
    assert not found.wrong, f"{title}: {found.wrong}; exit {found.code}: {found.said[-600:]}"


@pytest.mark.parametrize("title", KNOWN)
def test_a_value_that_went_wrong_once_is_refused_or_trains(title: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    judge(title, *CASES[title], tmp_path)


@pytest.mark.slow
def test_a_boundary_value_of_any_field_is_refused_or_trains() -> None:
    """A sample of the values, and all that is wrong with it; `SFUMATO_FIELDS=0:500` names others."""
    first, last = map(int, os.environ.get("SFUMATO_FIELDS", f"0:{MANY}").split(":"))
    found = []
    for title in random.Random(0).sample(sorted(CASES), len(CASES))[first:last]:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            try:
                judge(title, *CASES[title], Path(folder))
            except AssertionError as fault:
                found.append(str(fault).partition("\nassert")[0])
    assert not found, "\n\n".join(found)


ODD_VALUES = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),  # an example is a training, so none is made smaller
)


@pytest.mark.slow
@settings(ODD_VALUES, max_examples=MANY)
@given(data=st.data())
def test_any_value_of_any_field_is_refused_or_trains(data: st.DataObject) -> None:
    spot = data.draw(st.sampled_from([spot for spot in SPOTS if spot.path not in BUDGET]))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        judge(*spot.trial(data.draw(drawn(spot.hint))), Path(folder))


def test_every_recipe_keeps_the_bounds_of_its_own_fields() -> None:
    for make in entries("recipe").values():
        check_numbers(make())


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        (Bounds(1), (1, 2.5), (0, float("inf"), -1)),
        (Bounds(0, 1, "[)"), (0, 0.99), (1, -1e-9)),
        (Bounds(0, 1, "(]"), (1, 1e-9), (0, 1.1)),
        (Bounds(0, endless=True), (0, float("inf")), (-1, float("nan"))),
        (ANY, (0, -1e30), (float("inf"), float("nan"))),
    ],
)
def test_bounds_hold_what_they_say(bounds: Bounds, inside: tuple[float, ...], outside: tuple[float, ...]) -> None:
    assert all(value in bounds for value in inside)
    assert not any(value in bounds for value in outside)


def test_no_number_of_a_part_is_unbounded_where_its_default_is_infinite() -> None:
    import inspect
    import typing

    for path, axis, name in parts():
        entry = entries(axis)[name]
        hints = typing.get_type_hints(entry, include_extras=True)
        for option, p in inspect.signature(entry).parameters.items():
            if isinstance(p.default, int | float) and not isinstance(p.default, bool) and option in hints:
                assert p.default in bounds_of(hints[option]), (path, name, option)
