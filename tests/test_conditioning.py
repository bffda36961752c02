"""Noise conditioning: each entry recovers the time it names, at any scale of x."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato import conditioning, schedules
from sfumato.core.find import entries
from sfumato.core.level import Level
from sfumato.core.table import Table

F64 = torch.float64
TIMES = torch.linspace(0.02, 0.98, 13, dtype=F64)


@pytest.mark.parametrize(
    ("c_noise", "schedule"),
    [
        (conditioning.flow_time(), schedules.flow()),
        (conditioning.vp_time(scale=1.0), schedules.vp()),
        (conditioning.vp_time(0.3, 5.0, scale=1.0), schedules.vp(0.3, 5.0)),
        (conditioning.angle(), lambda t: Level((math.pi / 2 * t).cos(), (math.pi / 2 * t).sin())),
    ],
)
def test_time_is_recovered(c_noise, schedule) -> None:
    torch.testing.assert_close(c_noise(schedule(TIMES)), TIMES, rtol=1e-10, atol=0)


def test_index_counts_from_zero_and_rescales() -> None:
    """DDPM's t is 0..T-1; iDDPM's is t * 1000 / T."""
    table = schedules.cosine(4000).levels
    assert conditioning.index(table)(table[[1, 2, 4000]]).tolist() == [0.0, 1.0, 3999.0]
    assert conditioning.index(table, scale=0.25)(table[[1, 5]]).tolist() == [0.0, 1.0]
    assert conditioning.index(table, offset=0.0)(table[[0, 7]]).tolist() == [0.0, 7.0]


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_index_between_counts_as_index_does_and_is_straight_in_the_logarithm(steps: int) -> None:
    chain = Table.from_betas(torch.linspace(1e-4, 0.02, steps, dtype=F64))
    told = conditioning.index_between(chain)
    torch.testing.assert_close(told(chain.levels[1:]), torch.arange(steps, dtype=F64), rtol=0, atol=1e-9)
    if steps == 1000:
        low, high = chain.levels[30].nsr, chain.levels[31].nsr
        share = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=F64)
        between = Level.of(1.0, low * (high / low) ** share)
        torch.testing.assert_close(told(between), 29 + share, rtol=0, atol=1e-9)
    beyond = Level.of([1.0, 0.0], [1e-9, 1.0])
    assert told(beyond).tolist() == pytest.approx([0.0, steps - 1.0])
    with pytest.raises(ValueError, match="discrete chain"):
        conditioning.index_between(schedules.vp())


def test_logarithms_of_the_noise() -> None:
    level = Level.of([1.0, 2.0], [0.5, 3.0])
    torch.testing.assert_close(conditioning.quarter_log_nsr()(level), conditioning.log_nsr(scale=0.25)(level))
    assert conditioning.log_nsr(factor=0.5)(level).tolist() == pytest.approx([math.log(0.25), math.log(0.75)])


@pytest.mark.parametrize("name", entries("conditioning"))
def test_scale_of_x_is_irrelevant(name: str) -> None:
    table = schedules.linear(100).levels
    chain = {"index": {"table": table}, "index-between": {"schedule": schedules.linear(100)}}
    c_noise = entries("conditioning")[name](**chain.get(name, {}))
    level = table[[1, 30, 100]]
    assert c_noise(level).dtype == F64 and c_noise(level).shape == (3,)
    direction = -1 if name == "signal-share" else 1  # the only one that grows towards the clean image
    assert bool((direction * c_noise(level).diff() > 0).all())
    torch.testing.assert_close(c_noise(level.scaled(5.0)), c_noise(level), rtol=1e-9, atol=0)


def test_bounded_times_are_finite_at_both_ends() -> None:
    ends = Level.of([1.0, 0.0], [0.0, 1.0])
    for c_noise in (conditioning.flow_time(3.0), conditioning.angle(3.0)):
        assert c_noise(ends).tolist() == pytest.approx([0.0, 3.0])
