"""Which levels a run's bits are counted on, for every family."""

from __future__ import annotations

import pytest
import torch

from sfumato.codelength import chain as room
from sfumato.codelength.chain import chain_of, continuous, own_gauge, span
from sfumato.core.find import find
from sfumato.data import load
from sfumato.runs.assemble import build_denoiser, build_network, context_of
from sfumato.runs.recipe import Recipe, RecipeError, override
from sfumato.runs.run import resolve


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
        assert own_gauge(own).name == gauge
    chain = chain_of(own)
    assert len(chain.grid) == steps + 1 and chain.variance == variance
    assert float(chain.grid.sigma[-1]) == 0 and bool((chain.grid.nsr.diff() < 0).all())
    path = own_gauge(own)
    torch.testing.assert_close(path.where(chain.grid[:-1])[0], torch.ones(steps, dtype=torch.float64))
    low, high = span(own)
    assert low * (1 - 1e-9) <= float(chain.grid.nsr[-2]) and float(chain.grid.nsr[0]) <= high * (1 + 1e-9)


def test_a_chosen_chain_is_even_in_log_snr_and_says_so() -> None:
    chain = chain_of(resolved("flow-digits"), steps=30, near=0.05)
    steps = chain.grid.log_snr[:-1].diff()
    torch.testing.assert_close(steps, steps[0].expand(29))
    assert float(chain.grid.nsr[-2]) == pytest.approx(0.05)
    assert "30 levels chosen" in chain.words and "0.05" in chain.words and "flow scale" in chain.words
    assert float(chain_of(resolved("flow-digits")).grid.nsr[-2]) == pytest.approx(room.NEAREST)


def test_a_table_is_its_own_chain() -> None:
    own = resolved("ddpm-digits")
    table = context_of(own)["table"]
    assert torch.equal(chain_of(own).grid.sigma, table.sigma.flip(0))
    few = chain_of(own, steps=25)
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
        chain_of(resolved(recipe), **options)


def test_a_scale_on_no_path_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    own = resolved("flow-digits")
    schedule = context_of(own)["schedule"]
    monkeypatch.setattr(room, "context_of", lambda recipe: {"schedule": lambda t: schedule(t).scaled(2.0)})
    with pytest.raises(RecipeError, match="neither on alpha = 1"):
        own_gauge(own)


def test_between_the_levels_of_a_table_the_number_is_interpolated() -> None:
    own = resolved("ddpm-digits")
    discrete = build_denoiser(own, build_network(own))
    everywhere = continuous(discrete)
    table = context_of(own)["table"]
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
    continuous_run = build_denoiser(resolved("edm-digits"), torch.nn.Identity())
    assert continuous(continuous_run) is continuous_run
