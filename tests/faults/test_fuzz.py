"""Thousands of inputs that nobody meant: each gives a result or one sentence, soon, in little memory, in its folder.

An input that fails is looked at again by its number: ``Fuzz(folder).try_one(number)``.
"""

from __future__ import annotations

import os
import warnings

import pytest
from tests.faults.hostile import Fuzz, outside

FEW, MANY = 76, 2000  # four of each of the 19 kinds; `slow` tries the others


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Fuzz:
    return Fuzz(tmp_path_factory.mktemp("fuzz"))


def faults(fuzz: Fuzz, numbers: range) -> list[str]:
    """Return what is wrong with the answers to some inputs, a line each."""
    before = {path: os.stat(path).st_mtime_ns for path in outside(fuzz.seeds)}
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in numbers:
            words, said = fuzz.try_one(number)
            if fault := said.fault():
                found.append(f"{number}: {fault}: sfumato {' '.join(words)[:200]}\n{said.said[-800:]}")
    after = {path: os.stat(path).st_mtime_ns for path in outside(fuzz.seeds)}
    found += [f"changed or written outside: {path}" for path in after if after[path] != before.get(path)]
    found += [f"written outside: {path}" for path in fuzz.work.iterdir() if path not in (fuzz.seeds, fuzz.place)]
    return found


def test_a_few_hostile_inputs_are_answered(fuzz: Fuzz) -> None:
    found = faults(fuzz, range(FEW))
    assert not found, "\n\n".join(found)


@pytest.mark.slow
def test_thousands_of_hostile_inputs_are_answered(fuzz: Fuzz) -> None:
    found = faults(fuzz, range(FEW, FEW + MANY))
    assert not found, f"{len(found)} of {MANY}\n" + "\n\n".join(found[:20])


def test_the_fuzz_can_fail(fuzz: Fuzz, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(words: list[str]) -> int:
        raise SystemExit(print("Traceback (most recent call last):") or 1)

    def run(words: list[str]) -> int:
        try:
            return broken(words)
        except SystemExit:
            return 1

    monkeypatch.setattr(fuzz, "main", run)
    assert faults(fuzz, range(1))[0].startswith("0: exit code 1")
    monkeypatch.setattr(fuzz, "main", lambda words: len(bytearray(os.urandom(1) * (1100 << 20))) * 0)
    assert "MiB" in faults(fuzz, range(1))[0]
