"""A condition of several parts: a plain label stays what it was, and null is one value for each part."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.core.condition import NULL, Condition, condition, dropped, filled, joined, part_of, told, without

LABEL = torch.tensor([2, NULL, 0])
VECTOR = torch.tensor([[0.5, -1.0], [math.nan, 2.0], [math.nan, math.nan]])
IMAGE = torch.linspace(-1, 1, 12).reshape(3, 1, 2, 2)
WHOLE = Condition(LABEL, VECTOR, IMAGE)


def same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    """Return whether two parts are equal, nulls included."""
    return a is b or (a is not None and b is not None and torch.equal(a.nan_to_num(9.0), b.nan_to_num(9.0)))


def test_a_plain_label_stays_the_tensor_that_it_is():
    assert torch.equal(without(LABEL), torch.full_like(LABEL, NULL))
    assert torch.equal(joined([LABEL, LABEL]), torch.cat((LABEL, LABEL)))
    mask = torch.tensor([True, False, False])
    assert torch.equal(dropped(LABEL, {"label": mask}), torch.tensor([NULL, NULL, 0]))
    assert part_of(LABEL, "label") is LABEL and part_of(LABEL, "vector") is None and condition(None) is None
    assert told(LABEL) == ("label",) and told(without(LABEL)) == () and told(None) == ()


def test_rows_are_taken_of_every_part_and_put_together_again():
    again = joined([WHOLE[:1], WHOLE[1:]])
    assert isinstance(again, Condition) and len(again) == 3
    assert all(same(getattr(again, name), getattr(WHOLE, name)) for name in ("label", "vector", "image"))


def test_each_part_has_its_own_null():
    fewer = without(WHOLE, ("vector",))
    assert told(WHOLE) == ("label", "vector", "image") and told(fewer) == ("label", "image")
    assert same(part_of(fewer, "label"), LABEL) and same(part_of(fewer, "image"), IMAGE)
    assert told(without(WHOLE)) == ()
    here = dropped(WHOLE, {"image": torch.tensor([True, False, False])})
    assert bool(part_of(here, "image")[0].isnan().all()) and not bool(part_of(here, "image")[1:].isnan().any())


def test_a_number_that_is_not_told_is_zero_beside_a_zero():
    assert filled(VECTOR)[1].tolist() == [0.0, 2.0, 0.0, 1.0]
    assert filled(IMAGE).shape == (3, 2, 2, 2)


@pytest.mark.parametrize("parts", [{}, {"label": LABEL, "vector": VECTOR[:2]}])
def test_parts_of_other_images_are_refused(parts):
    with pytest.raises(ValueError, match="of the same images"):
        Condition(**parts)
