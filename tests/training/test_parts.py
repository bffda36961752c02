"""Averages, rates, optimisers and assembly: each against its definition."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sfumato.core.find import OptionError
from sfumato.networks.jit import jit
from sfumato.runs.averages import gamma_of
from sfumato.runs.override import override
from sfumato.runs.plan import make, plan
from sfumato.runs.recipe import Ema, RecipeError, part
from sfumato.runs.resolve import load_data, resolve
from sfumato.training import rates
from sfumato.training.ema import Averages, half_life, power
from sfumato.training.muon import EACH, FEWER, orthogonalise
from sfumato.training.optim import muon


def test_power_average_is_the_weighted_sum():
    """EDM2 eq. (4): the average of theta_1..theta_K weights step k by k^gamma, up to the recursion's own rounding."""
    gamma, batch = gamma_of(0.10), 32
    profile, average = power(0.10), 0.0
    values = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for k, value in enumerate(values, start=1):
        keep = profile(k * batch, batch)
        average = keep * average + (1 - keep) * value
    k = torch.arange(1, 401, dtype=torch.float64)
    weights = k ** (gamma + 1) - (k - 1) ** (gamma + 1)  # what the recursion telescopes to
    assert float(average) == pytest.approx(float((weights * values).sum() / weights.sum()), rel=1e-12)


def test_power_width():
    """The profile's standard deviation relative to the run's length is sigma_rel."""
    for width in (0.05, 0.10, 0.15):
        gamma = gamma_of(width)
        assert ((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))) ** 0.5 == pytest.approx(width, rel=1e-9)


def test_half_life_halves():
    """After one half-life of images an old weight counts half; early on the half-life is 5% of the images seen."""
    profile = half_life(0.001, 0.0)
    keep = 1.0
    for _ in range(10):
        keep *= profile(10**6, 100)
    assert keep == pytest.approx(0.5)
    assert half_life(1.0, 0.05)(2000, 100) == pytest.approx(0.5)  # 5% of 2000 is one batch


def test_averages_follow_the_network():
    network = nn.Linear(2, 2)
    averages = Averages(network, Ema(power=(0.10,), half_life=(), use="power-0.10"))
    first = copy.deepcopy(network.state_dict())
    averages.update(network, 8, 8)
    with torch.no_grad():
        network.weight.add_(1.0)
    averages.update(network, 16, 8)
    keep = power(0.10)(16, 8)
    expected = keep * first["weight"] + (1 - keep) * (first["weight"] + 1)
    assert torch.allclose(averages.weights["power-0.10"]["weight"], expected)
    assert torch.equal(averages.network(network, "raw").weight, network.weight)
    with pytest.raises(RecipeError, match="not kept"):
        Averages(network, Ema(power=(0.05,), use="power-0.10"))


def test_rates():
    """Warm-up starts above zero and reaches one; every schedule that ends with the budget ends at zero."""
    assert rates.constant(100)(49, 0.9) == 0.5 and rates.constant(100)(99, 0.0) == 1.0
    linear = rates.linear(hold=0.4)
    assert linear(10**6, 0.4) == 1.0 and linear(10**6, 0.7) == pytest.approx(0.5) and linear(10**6, 1.0) == 0.0
    assert rates.cosine()(1, 0.5) == pytest.approx(0.5) and rates.cosine()(1, 1.0) == pytest.approx(0.0)
    root = rates.inverse_sqrt(after=100, cooldown=0.5)
    assert root(50, 0.0) == 1.0 and root(400, 0.5) == pytest.approx(0.5) and root(400, 0.75) == pytest.approx(0.25)


@pytest.mark.parametrize("blocks", [EACH, FEWER])
def test_orthogonalise(blocks):
    """Five iterations bring every singular value of tall, wide and square matrices near one and keep the vectors."""
    for rows, columns in ((32, 200), (200, 32), (48, 48)):
        matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
        u, s, v = torch.linalg.svd(orthogonalise(matrix, blocks))
        assert s.max() < 1.35 and s[: int(0.9 * len(s))].min() > 0.5
        alignment = (orthogonalise(matrix, blocks) * matrix).sum() / (matrix.norm() * s.norm())
        assert alignment > 0.6


@pytest.mark.parametrize("smallest", [0.0, -3.0])
def test_fewer_products_orthogonalise_the_same_to_rounding(smallest):
    """Against the iteration in float64, whatever the singular values: no farther off than with X after each."""
    u, _, v = torch.linalg.svd(torch.randn(32, 288, generator=torch.Generator().manual_seed(0)), full_matrices=False)
    matrix = (u * torch.logspace(0, smallest, 32)) @ v
    u, s, v = torch.linalg.svd(matrix.bfloat16().double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    exact = (u * s) @ v
    usual, fewer, drifted = (
        float((orthogonalise(matrix, b) - exact).norm() / exact.norm()) for b in (EACH, FEWER, (5,))
    )
    assert fewer < 1.2 * usual < 0.2
    assert smallest == 0 or drifted > 1  # without making it anew, the small ones are lost


def test_muon_takes_hidden_convolutions_only():
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 1, 3))
    first, rest = muon(network)
    assert [p.shape for g in first.param_groups for p in g["params"]] == [(8, 8, 3, 3)]
    assert (
        sum(p.numel() for g in rest.param_groups for p in g["params"])
        == sum(p.numel() for p in network.parameters()) - 8 * 8 * 9
    )


def test_muon_takes_the_matrices_of_a_transformer_s_blocks():
    network = jit(width=32, depth=2, heads=4, classes=3)
    first, rest = muon(network)
    taken = {id(p) for group in first.param_groups for p in group["params"]}
    names = {name for name, p in network.named_parameters() if id(p) in taken}
    layers = ("qkv", "out", "gated", "last", "modulation")
    assert names == {f"blocks.{i}.{layer}.weight" for i in range(2) for layer in layers}
    assert sum(len(group["params"]) for group in rest.param_groups) + len(taken) == len(list(network.parameters()))


def test_muon_without_a_matrix_says_so():
    with pytest.raises(ValueError, match="train.optimizer=adam"):
        muon(torch.nn.Linear(3, 3))


def test_parts_are_given_what_they_ask_for(tiny):
    """sigma_data reaches the target; a table is refused where the schedule is continuous, with the remedy."""
    resolved = resolve(tiny, load_data(tiny, "train"))
    made = plan(resolved)
    assert made.classes == 10 and made.size == 8 and 0.3 < made.sigma_data < 1.0
    made.made("target")
    assert made.asked["target"][0] == {"sigma_data": resolved.sigma_data}
    with pytest.raises(RecipeError, match="schedule=linear"):
        plan(override(resolved, ["sample.grid=full"])).made("grid")
    with pytest.raises(OptionError, match="stepz"):
        make(part("grid", "karras", stepz=3), {})
    discrete = override(resolved, ["schedule=cosine", "schedule.steps=20", "sample.grid=full"])
    assert len(plan(discrete).grid) == 21
