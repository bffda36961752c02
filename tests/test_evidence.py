"""The pages of evidence say what the tests asserted: every comparison, the tolerance it was held to, every failure."""

from __future__ import annotations

import numpy as np
import pytest

from .evidence import Proof, laws_page, made_by, parity_page
from .parity.measured import SEEN, Error, Found, identical


@pytest.fixture(autouse=True)
def _empty() -> None:
    SEEN.clear()


def test_an_error_records_the_tolerance_it_was_compared_with() -> None:
    assert Error(1e-12) < 1e-10
    assert Error(2e-12) <= 1e-11
    assert not Error(1e-3) < 1e-10
    assert SEEN == [(1e-12, 1e-10), (2e-12, 1e-11), (1e-3, 1e-10)]


def test_asking_whether_an_error_is_large_records_nothing() -> None:
    assert Error(0.5) > 0.1
    assert SEEN == []


def test_a_value_records_how_far_it_is_from_the_golden_number() -> None:
    assert Found(2.0 + 2e-11) == pytest.approx(2.0, rel=1e-10)
    assert (Found(2.1) == pytest.approx(2.0, rel=1e-10)) is False
    assert Found(0.25) == np.float64(0.25)
    assert (Found(0.25) == np.float64(0.26)) is False
    errors, tolerances = zip(*SEEN)
    assert tolerances == (1e-10, 1e-10, 0.0, 0.0)
    assert errors == pytest.approx((1e-11, 0.05, 0.0, 0.01 / 0.26), rel=1e-4)


def test_identical_arrays_are_a_comparison_without_tolerance() -> None:
    identical(np.arange(3), np.arange(3))
    with pytest.raises(AssertionError):
        identical(np.arange(3), np.arange(3) + 1e-12)
    assert SEEN == [(0.0, 0.0)]


def proof(group: str, case: str = "", outcome: str = "passed", *comparisons: tuple[float, float]) -> Proof:
    return Proof(group, case, "It says this.", outcome, comparisons)


def test_the_parity_page_quotes_the_worst_error_and_every_case() -> None:
    page = parity_page(
        [
            proof("test_edm::test_loss", "edm", "passed", (1e-13, 1e-10), (4e-12, 1e-10)),
            proof("test_edm::test_loss", "vp", "passed", (2e-14, 1e-9)),
            proof("test_edm::test_shapes"),
        ]
    )
    assert "2 cases, 3 comparisons" in page
    assert "| edm: loss | NVlabs/edm 008a4e5 | 2 | 3 | 4.0e-12 | 1e-10, 1e-09 | holds |" in page
    assert "| `vp` | 1 | 2.0e-14 | 1e-09 | holds |" in page
    assert "shapes" not in page


def test_a_failure_is_on_the_page() -> None:
    failed = proof("test_edm::test_loss", "edm", "failed", (1.0, 1e-10))
    assert "**0 of 1 hold**" in parity_page([failed])
    laws = [proof("test_kernel::test_it_holds", "a"), proof("test_kernel::test_it_holds", "b", "failed")]
    assert "| `it_holds` | It says this. | 2 | **1 of 2 hold** |" in laws_page(laws)


def test_a_group_of_unknown_origin_is_refused() -> None:
    assert made_by("test_solvers::test_pndm") == "diffusers 0.42.1"
    with pytest.raises(ValueError, match="MADE_BY"):
        made_by("test_novel::test_loss")
