"""Starts between two seeds keep the law of a start; classes are named, and taken in turn by seed."""

from __future__ import annotations

import pytest
import torch

from sfumato.core.find import UnknownNameError
from sfumato.core.noise import SamplingNoise
from sfumato.sources import between, class_names, classes_named, in_turn


def start(seed: int) -> torch.Tensor:
    return SamplingNoise([seed], (3, 64, 64)).start()


def test_the_ends_are_exact_and_the_way_keeps_its_length() -> None:
    a, b = start(1), start(2)
    mixed = between(a, b, torch.linspace(0, 1, 9))
    assert torch.equal(mixed[:1], a) and torch.equal(mixed[-1:], b)
    variance = mixed.flatten(1).var(1)
    assert bool(((variance - 1).abs() < 0.05).all())  # 12288 numbers: 4 sd are 0.051; a straight line has 1/2 midway
    assert abs(float(torch.lerp(a, b, 0.5).var()) - 0.5) < 0.05


def test_steps_are_equal_angles() -> None:
    mixed = between(start(1), start(2), torch.linspace(0, 1, 5)).flatten(1).double()
    mixed /= mixed.norm(dim=1, keepdim=True)
    angles = torch.acos((mixed[1:] * mixed[:-1]).sum(1))
    assert float(angles.std() / angles.mean()) < 0.01


def test_a_seed_and_itself_is_that_seed() -> None:
    assert torch.equal(between(start(3), start(3), torch.tensor([0.0, 0.3, 1.0])), start(3).expand(3, -1, -1, -1))


def test_a_class_name_goes_before_a_number() -> None:
    assert classes_named("1,0", ("1", "0", "coat")) == [0, 1]
    assert classes_named("2,coat", ("1", "0", "coat")) == [2, 2]
    assert classes_named("none", ("a",)) is None
    assert classes_named(None, ()) is None
    with pytest.raises(UnknownNameError, match="Did you mean 'coat'"):
        classes_named("coats", ("1", "coat"))


def test_the_label_of_a_seed_does_not_depend_on_the_other_seeds() -> None:
    together = in_turn(range(10, 20), [4, 7, 9])
    assert together is not None
    for i, seed in enumerate(range(10, 20)):
        alone = in_turn([seed], [4, 7, 9])
        assert alone is not None and alone[0] == together[i]
    assert set(together.tolist()) == {4, 7, 9}


@pytest.mark.parametrize("wanted", ["coat,0", " coat , 0", ["coat", 0], ("coat", "0")])
def test_classes_are_named_in_a_text_or_in_a_list(wanted) -> None:
    assert classes_named(wanted, ("bag", "coat")) == [1, 0]
    assert classes_named("", ("bag", "coat")) == classes_named([], ("bag", "coat")) == [0, 1]
    assert classes_named("-1", ("bag", "coat")) == [-1] and class_names([0, -1], ("bag",)) == ["bag", "no class"]


@pytest.mark.parametrize(
    ("wanted", "known", "words"),
    [
        ("2", ("bag", "coat"), r"Labels lie in \[0, 2\) \(or -1 for no class\); got 2 to 2"),
        ([0, -2], ("bag", "coat"), r"Labels lie in \[0, 2\) .*; got -2 to 0"),
        ("9" * 30, ("bag",), "Unknown class '999"),
        ("bag,", ("bag",), "Unknown class ''"),
        ("3", (), "trained without labels, so it takes none"),
        (["bag"], (), "trained without labels, so it takes none"),
    ],
)
def test_classes_that_a_model_does_not_have_are_refused(wanted, known, words) -> None:
    with pytest.raises(ValueError, match=words):
        classes_named(wanted, known)
