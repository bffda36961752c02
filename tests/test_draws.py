"""Draws: quantile functions of the distributions they name."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato import draws, schedules
from sfumato.core.find import entries
from sfumato.core.level import index_in
from sfumato.core.noise import normal, uniform

F64 = torch.float64


def quantiles(count: int) -> torch.Tensor:
    """Midpoints of `count` strata: integrals over a draw become sums over these."""
    return (torch.arange(count, dtype=F64) + 0.5) / count


@pytest.mark.parametrize("name", entries("draw"))
def test_a_draw_is_a_quantile_function(name: str) -> None:
    """More u is more noise, one level per number, and nothing is random."""
    given = {"schedule": schedules.linear(100), "table": schedules.linear(100).levels}
    entry = entries("draw")[name]
    needs = {k: v for k, v in given.items() if k in entry.__annotations__}
    draw = entry(**needs)
    levels = draw(quantiles(1000))
    assert levels.shape == (1000,)
    assert bool((torch.atan2(levels.sigma, levels.alpha).diff() >= 0).all())
    assert bool((levels.sigma > 0).all())
    assert torch.equal(draw(quantiles(1000)).sigma, levels.sigma)


def test_uniform_visits_every_entry_of_a_table_equally() -> None:
    """Stratified quantiles visit each of the entries 1..T exactly as often, and never the clean one."""
    table = schedules.linear(50)
    levels = draws.uniform(table)(quantiles(500))
    assert torch.equal(index_in(table.levels, levels).bincount(minlength=51), torch.tensor([0] + [10] * 50))
    edge = draws.uniform(table)(torch.tensor([1e-16, 1 - 1e-16], dtype=F64))
    assert index_in(table.levels, edge).tolist() == [1, 50]


def test_uniform_times_of_a_schedule() -> None:
    sigma = draws.uniform(schedules.flow(), t_min=0.2, t_max=0.8)(quantiles(1000)).sigma
    assert float(sigma.mean()) == pytest.approx(0.5) and float(sigma.std()) == pytest.approx(0.6 / 12**0.5, rel=1e-3)


def test_lognormal_has_its_mean_and_deviation() -> None:
    log_nsr = draws.lognormal(-1.2, 1.2)(quantiles(100_000)).nsr.log()
    assert float(log_nsr.mean()) == pytest.approx(-1.2, abs=1e-4)
    assert float(log_nsr.std()) == pytest.approx(1.2, rel=1e-3)
    assert float(draws.lognormal(-1.2, 1.2)(torch.tensor([0.5], dtype=F64)).nsr) == pytest.approx(math.exp(-1.2))


def test_lognormal_can_be_confined() -> None:
    nsr = draws.lognormal(0.0, 3.0, sigma_min=0.002, sigma_max=80.0)(quantiles(10_000)).nsr
    assert (float(nsr.min()), float(nsr.max())) == (0.002, 80.0)


def test_logit_normal_lies_on_the_straight_line() -> None:
    levels = draws.logit_normal(-0.5, 1.3)(quantiles(100_000))
    torch.testing.assert_close(levels.alpha + levels.sigma, torch.ones(100_000, dtype=F64))
    logit = levels.nsr.log()
    assert float(logit.mean()) == pytest.approx(-0.5, abs=1e-4) and float(logit.std()) == pytest.approx(1.3, rel=1e-3)


def warm_importance(terms: int = 20, history: int = 4) -> tuple[draws.Importance, torch.Tensor]:
    table = schedules.cosine(terms).levels
    draw = draws.importance(table, history=history)
    scale = torch.linspace(0.1, 3, terms, dtype=F64)
    for k in range(history):
        assert not draw.warm
        draw.update(table[1:], scale * (1 + 0.1 * normal([k], (terms,), purpose="loss", dtype=F64)[0]).abs())
    return draw, scale


def test_importance_is_uniform_until_warm_then_follows_the_losses() -> None:
    table = schedules.cosine(20).levels
    assert torch.equal(draws.importance(table).probabilities, torch.full((20,), 1 / 20, dtype=F64))
    draw, scale = warm_importance()
    assert draw.warm
    expected = scale / scale.sum()
    torch.testing.assert_close(draw.probabilities, expected, rtol=0.25, atol=0)
    assert float(draw.probabilities.sum()) == pytest.approx(1)


def test_importance_draws_with_its_probabilities() -> None:
    draw, _ = warm_importance()
    counts = index_in(draw.table, draw(quantiles(200_000))).bincount(minlength=21)[1:]
    torch.testing.assert_close(counts.double() / 200_000, draw.probabilities, rtol=0, atol=2e-5)


def test_importance_weights_leave_expectations_unchanged() -> None:
    """sum_i p_i w_i f_i = mean_i f_i for any f, exactly; and on a sample within 4 standard errors."""
    draw, _ = warm_importance()
    f = uniform(range(20), purpose="f")
    weight = draw.weight(draw.table[1:])
    torch.testing.assert_close((draw.probabilities * weight * f).sum(), f.mean(), rtol=1e-12, atol=0)
    levels = draw(uniform(range(20_000), purpose="u"))
    values = draw.weight(levels) * f[index_in(draw.table, levels) - 1]
    assert abs(float(values.mean() - f.mean())) < 4 * float(values.std()) / 20_000**0.5


def test_importance_survives_a_checkpoint() -> None:
    draw, _ = warm_importance()
    other = draws.importance(draw.table, history=4)
    other.load(draw.state())
    assert torch.equal(other.probabilities, draw.probabilities)
    draw.update(draw.table[[3, 3]], torch.tensor([9.0, 9.0]))
    assert not torch.equal(other.probabilities, draw.probabilities)  # the state is a copy
    with pytest.raises(ValueError, match=r"holds \(20, 4\) losses and the draw \(20, 10\)"):
        draws.importance(draw.table).load(draw.state())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: draws.lognormal(std=0.0), "std must be positive"),
        (lambda: draws.logit_normal(std=-1.0), "std must be positive"),
        (lambda: draws.uniform(schedules.vp(), t_min=0.5, t_max=0.2), "0 <= t_min < t_max <= 1"),
        (lambda: draws.uniform(schedules.linear(), t_min=0.1), "drawn from as a whole"),
        (lambda: draws.importance(schedules.linear().levels, history=0), "history >= 1"),
        (lambda: draws.importance(schedules.linear().levels, uniform_share=0.0), "uniform_share in"),
    ],
)
def test_mistakes(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
