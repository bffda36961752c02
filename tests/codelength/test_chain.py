"""Which levels a run's bits are counted on, for every family."""

from __future__ import annotations

import pytest
import torch

from sfumato.codelength import chain as room
from sfumato.codelength.chain import chain_of, continuous, own_gauge, span
from sfumato.core.find import find
from sfumato.data import load
from sfumato.runs.override import override
from sfumato.runs.plan import Plan, plan
from sfumato.runs.recipe import Recipe, RecipeError
from sfumato.runs.resolve import resolve


def resolved(name: str, *fields: str) -> Recipe:
    return resolve(override(find("recipe", name)(), fields), load("digits", split="train"))


@pytest.mark.parametrize(
    ("recipe", "gauge", "steps", "variance"),
    [
        ("edm-digits", "vp", 200, "small-own"),
        ("flow-digits", "flow", 200, "small-own"),
        ("vp-digits", "vp", 200, "small-own"),
        ("ve-digits", "ve", 200, "small-own"),
        ("ddpm-digits", "vp", 1000, "small"),
        ("iddpm-digits", "vp", 1000, "learned"),
    ],
)
def test_every_family_has_a_chain_at_its_own_scale(recipe: str, gauge: str, steps: int, variance: str) -> None:
    own = resolved(recipe)
    if own.c_in == "one":
        assert own_gauge(plan(own)).name == gauge
    chain = chain_of(plan(own))
    assert len(chain.grid) == steps + 1 and chain.variance == variance
    assert float(chain.grid.sigma[-1]) == 0 and bool((chain.grid.nsr.diff() < 0).all())
    path = own_gauge(plan(own))
    torch.testing.assert_close(path.where(chain.grid[:-1])[0], torch.ones(steps, dtype=torch.float64))
    low, high = span(plan(own))
    assert low * (1 - 1e-9) <= float(chain.grid.nsr[-2]) and float(chain.grid.nsr[0]) <= high * (1 + 1e-9)


def test_a_chosen_chain_is_even_in_log_snr_and_says_so() -> None:
    chain = chain_of(plan(resolved("flow-digits")), steps=30, near=0.05)
    steps = chain.grid.log_snr[:-1].diff()
    torch.testing.assert_close(steps, steps[0].expand(29))
    assert float(chain.grid.nsr[-2]) == pytest.approx(0.05)
    assert "30 levels chosen" in chain.words and "0.05" in chain.words and "flow scale" in chain.words
    own = plan(resolved("vp-digits"))
    assert float(chain_of(own).grid.nsr[-2]) == pytest.approx(max(room.NEAREST, span(own)[0]))


@pytest.mark.parametrize("name", ["edm-digits", "flow-digits"])
def test_a_chain_stays_within_the_levels_of_training(name: str) -> None:
    """Where nothing reads the schedule, its ends mean nothing: the draw says which levels were trained."""
    own = plan(resolved(name, "train.images=10_000"))
    assert "schedule" not in own.reads
    drawn = own.draw((torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000).nsr
    low, high = span(own)
    assert float(drawn.min()) <= low < high <= float(drawn.max())
    nsr = chain_of(own).grid.nsr[:-1]
    assert float(drawn.min()) <= float(nsr.min()) and float(nsr.max()) <= float(drawn.max())


def test_a_table_is_its_own_chain() -> None:
    own = resolved("ddpm-digits")
    table = plan(own).table
    assert torch.equal(chain_of(plan(own)).grid.sigma, table.sigma.flip(0))
    few = chain_of(plan(own), steps=25)
    assert 18 <= len(few.grid) - 1 <= 25 and bool(torch.isin(few.grid.sigma, table.sigma).all())
    assert few.words == f"{len(few.grid) - 1} (even in log-SNR) of the 1000 levels of its table"
    steps = few.grid.log_snr[:-1].diff()
    assert float(steps.max()) < 2.5 * float(steps.median())  # even in t the last one would be 8 times that
    assert float(few.grid.sigma[-2]) == float(table.sigma[1]) and float(few.grid.sigma[0]) == float(table.sigma[-1])


@pytest.mark.parametrize(
    ("recipe", "options", "words"),
    [
        ("edm-digits", {"steps": 1}, "at least 2 steps"),
        ("edm-digits", {"near": 1e-4}, r"lies in \[0.002"),
        ("edm-digits", {"near": 90.0}, r"lies in \[0.002"),
        ("ddpm-digits", {"near": 0.1}, "Leave `near` out"),
        ("ddpm-digits", {"steps": 2000}, "1000 levels; got 2000"),
        ("edm-digits", {"variance": "smal"}, "Did you mean 'small'"),
    ],
)
def test_what_does_not_fit_is_refused(recipe: str, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        chain_of(plan(resolved(recipe)), **options)


def test_a_scale_on_no_path_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    own = resolved("flow-digits")
    made = plan(own)
    trained = plan(own).trained_levels(torch.linspace(0.1, 0.9, 9, dtype=torch.float64))
    monkeypatch.setattr(Plan, "trained_levels", lambda self, quantiles: trained.scaled(2.0))
    with pytest.raises(RecipeError, match="neither on alpha = 1"):
        own_gauge(made)


def test_between_the_levels_of_a_table_the_number_is_interpolated() -> None:
    own = resolved("ddpm-digits")
    discrete = plan(own).model(plan(own).build_network())
    everywhere = continuous(discrete)
    table = plan(own).table
    at = table[torch.tensor([1, 400, 1000])]
    torch.testing.assert_close(everywhere.c_noise(at), discrete.c_noise(at).double())
    between = torch.linspace(0.02, 1.4, 50, dtype=torch.float64)
    told = everywhere.c_noise(table.__class__(between.cos(), between.sin()))
    assert bool((told.diff() > 0).all())
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(everywhere(x, at).x0, discrete(x, at).x0)
    with pytest.raises(ValueError, match="discrete levels"):
        discrete(x[:1], table.__class__(between[9].cos(), between[9].sin()))
    continuous_run = plan(resolved("edm-digits")).model(torch.nn.Identity())
    assert continuous(continuous_run) is continuous_run
