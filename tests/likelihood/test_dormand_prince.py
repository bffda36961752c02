"""The adaptive walk: accurate to its tolerance, one step size per image, honest about failure."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sfumato.core.level import like
from sfumato.likelihood.dormand_prince import _A, _C, _E, Walk, walk

RATES = torch.tensor([0.3, 12.0, 3.0], dtype=torch.float64)


def oscillators(u: Tensor, y: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Row r turns at RATES[r] and integrates l = sin(rate u)."""
    rate = RATES[rows]
    turned = torch.stack((-y[:, 1], y[:, 0]), 1)
    return like(rate, y) * turned, rate * (rate * u).cos()


def finish(rows: Tensor, tolerance: float) -> Walk:
    start = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(len(rows), 2)
    *_, last = walk(lambda u, y, r: oscillators(u, y, rows[r]), start, 0.0, 1.0, rtol=tolerance, atol=tolerance)
    return last


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-9])
def test_the_error_follows_the_tolerance(tolerance: float) -> None:
    last = finish(torch.arange(3), tolerance)
    exact = torch.stack((RATES.cos(), RATES.sin()), 1)
    assert last.done.all() and (last.u == 1).all()
    assert float((last.y - exact).abs().max()) < 40 * tolerance
    assert float((last.l - RATES.sin()).abs().max()) < 80 * tolerance


def test_an_image_does_not_feel_its_neighbours() -> None:
    together = finish(torch.arange(3), 1e-6)
    assert together.nfe[0] < together.nfe[2] < together.nfe[1]
    for i in range(3):
        alone = finish(torch.tensor([i]), 1e-6)
        assert torch.equal(alone.y[0], together.y[i])
        assert torch.equal(alone.l[0], together.l[i])
        assert alone.nfe[0] == together.nfe[i]


def test_the_pair_has_order_five_and_an_embedded_four() -> None:
    """The quadrature conditions sum b c^(k-1) = 1/k hold to order 5, those of the embedded weights to order 4."""
    b = (*_A[6], 0.0)
    embedded = [x - e for x, e in zip(b, _E)]
    for k in range(1, 6):
        assert sum(w * c ** (k - 1) for w, c in zip(b, _C)) == pytest.approx(1 / k, abs=1e-14)
    for k in range(1, 5):
        assert sum(w * c ** (k - 1) for w, c in zip(embedded, _C)) == pytest.approx(1 / k, abs=1e-14)
    for row, c in zip(_A, _C):
        assert math.fsum(row) == pytest.approx(c, abs=1e-14)


def test_backward_walks_return() -> None:
    last = finish(torch.arange(3), 1e-8)
    *_, back = walk(oscillators, last.y, 1.0, 0.0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(back.y, torch.tensor([[1.0, 0.0]]).double().expand(3, 2), atol=1e-6, rtol=0)


def test_failures_are_named() -> None:
    start = torch.ones(2, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="positive"):
        next(walk(oscillators, start, 0.0, 1.0, rtol=0.0))
    with pytest.raises(ArithmeticError, match=r"images \[1\] is not finite"):
        list(walk(lambda u, y, r: (torch.where(r.unsqueeze(1) == 1, torch.nan, y), u * 0), start, 0.0, 1.0))
    with pytest.raises(ArithmeticError, match="did not arrive"):
        list(walk(lambda u, y, r: (y, u), start, 0.0, 1.0, max_steps=1))
