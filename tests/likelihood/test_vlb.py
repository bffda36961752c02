"""Theorems about the variational bound."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sfumato import grids, schedules
from sfumato.core.denoiser import Denoiser, Prediction
from sfumato.core.exact import Gaussian
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level
from sfumato.core.noise import SamplingNoise
from sfumato.likelihood.gaussian import Decoder, density, discretised
from sfumato.likelihood.vlb import BITS, Bound, mean_and_error, prior_bits, term, vlb

VP = grids.full(schedules.linear(100).levels)


def codes(batch: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 2, 4, 4), generator=generator).double() / 127.5 - 1


def noise_for(x0: Tensor, seeds: range | None = None) -> SamplingNoise:
    return SamplingNoise(seeds or range(len(x0)), x0.shape[1:], dtype=x0.dtype)


class Oracle:
    """Knows the answer."""

    def __init__(self, x0: Tensor, v: float | None = None) -> None:
        self.x0, self.v = x0, None if v is None else torch.full_like(x0, v)

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        return Prediction(self.x0, self.v)


class Halved:
    """Is always off by half."""

    def __init__(self, x0: Tensor) -> None:
        self.x0 = x0

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        return Prediction(self.x0 / 2)


@pytest.mark.parametrize("grid", [VP, grids.karras(12), grids.flow(9)], ids=["vp", "karras", "flow"])
@pytest.mark.parametrize("variance", ["small", "small-own", "learned"])
def test_an_oracle_makes_every_divergence_exactly_zero(grid: Level, variance: str) -> None:
    x0 = codes()
    oracle = Oracle(x0, v=0.0 if variance == "learned" else None)
    bound = Bound.gather(x0, grid, vlb(oracle, x0, grid, noise=noise_for(x0), variance=variance))
    assert (bound.terms[:, :-1] == 0).all()
    assert (bound.x0_mse == 0).all()
    assert (bound.decoder > 0).all() if variance == "small-own" else (bound.decoder >= 0).all()
    torch.testing.assert_close(bound.total, bound.prior + bound.decoder)


def test_a_uniform_decoder_costs_eight_bits() -> None:
    def uniform(x0: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
        return torch.full_like(x0, -math.log(256))

    x0 = codes()
    bound = Bound.gather(x0, VP, vlb(Oracle(x0), x0, VP, noise=noise_for(x0), decoder=uniform))
    torch.testing.assert_close(bound.decoder, torch.full((3,), 8.0, dtype=torch.float64))


def test_a_step_costs_half_the_gain_in_snr_times_the_error() -> None:
    x0 = codes()
    bound = Bound.gather(x0, VP, vlb(Halved(x0), x0, VP, noise=noise_for(x0)))
    snr = VP.log_snr.exp()
    error = (x0 / 2).square().flatten(1).mean(1, keepdim=True)
    torch.testing.assert_close(bound.terms[:, :-1], 0.5 * (snr[1:-1] - snr[:-2]) * error * BITS)
    torch.testing.assert_close(bound.x0_mse, error.expand(3, 100))


class Codes:
    """Knows the probability of every code of a single pixel: the exact denoiser of quantised data."""

    def __init__(self, log_p: Tensor) -> None:
        self.codes, self.log_p = torch.arange(256, dtype=torch.float64) / 127.5 - 1, log_p

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        logits = self.log_p - (x - level.alpha * self.codes) ** 2 / (2 * level.sigma**2)
        return Prediction((logits.softmax(1) * self.codes).sum(1, keepdim=True))


def gap_to(
    nll: Tensor, truth: Denoiser, x0: Tensor, decoder: Decoder, sigma_min: float, sigma_max: float
) -> list[tuple[float, float]]:
    """Return (bound - nll, standard error) for a grid of 50, 100 and 200 steps."""
    found = []
    for steps in (50, 100, 200):
        grid = grids.logsnr(steps, sigma_min=sigma_min, sigma_max=sigma_max)
        walk = vlb(truth, x0, grid, noise=noise_for(x0), variance="small-own", decoder=decoder)
        found.append(mean_and_error(Bound.gather(x0, grid, walk).total - nll))
    return found


def limit(gaps: list[tuple[float, float]]) -> float:
    """Extrapolate a + b / N + c / N^2 from N = 50, 100, 200 to infinity."""
    return (gaps[0][0] - 6 * gaps[1][0] + 8 * gaps[2][0]) / 3


def test_the_bound_of_the_exact_denoiser_approaches_the_true_likelihood() -> None:
    truth = Gaussian(torch.tensor([0.2, -0.1, 0.4]).double(), torch.tensor([0.3, 0.05, 0.6]).double())
    generator = torch.Generator().manual_seed(1)
    x0 = truth.mean + truth.variances.sqrt() * torch.randn(1000, 3, generator=generator, dtype=torch.float64)
    gaps = gap_to(-truth.log_density(x0, Level.clean()) * BITS / 3, truth, x0, density, 2e-3, 50.0)
    for (coarse, _), (fine, _) in zip(gaps, gaps[1:]):
        assert 1.8 < coarse / fine < 2.4  # it closes like 1 / N
    assert gaps[2][0] > 0
    assert abs(limit(gaps)) < 4 * gaps[2][1]


def test_the_bound_of_quantised_data_approaches_the_information_of_its_codes() -> None:
    mean, log_var = torch.zeros(256).double(), torch.tensor(math.log(0.09)).double()
    log_p = discretised(torch.arange(256, dtype=torch.float64) / 127.5 - 1, mean, log_var)
    generator = torch.Generator().manual_seed(2)
    code = torch.multinomial(log_p.exp(), 600, replacement=True, generator=generator)
    x0 = (code.double() / 127.5 - 1).unsqueeze(1)
    gaps = gap_to(-log_p[code] * BITS, Codes(log_p), x0, discretised, 1e-3, 4.0)
    # the information arrives where sigma is about a bin, too suddenly for an expansion in 1 / N to hold yet
    for (coarse, _), (fine, error) in zip(gaps, gaps[1:]):
        assert 4 * error < fine < 0.6 * coarse
    assert gaps[2][0] < 0.4


def test_noise_is_addressed_so_batches_do_not_matter() -> None:
    truth = Gaussian(torch.zeros(32).double(), torch.linspace(0.1, 1, 32).double())
    x0 = codes(5)
    whole = Bound.gather(x0, VP, vlb(truth, x0, VP, noise=noise_for(x0)))
    halves = []
    for rows in (range(2), range(2, 5)):
        part = x0[list(rows)]
        halves.append(Bound.gather(part, VP, vlb(truth, part, VP, noise=noise_for(part, rows))))
    joined = Bound.join(halves)
    torch.testing.assert_close(joined.terms, whole.terms, rtol=1e-12, atol=0)
    torch.testing.assert_close(joined.total, whole.total, rtol=1e-12, atol=0)


def test_learned_fractions_reproduce_both_fixed_variances() -> None:
    x0 = codes()
    kernel = Kernel.chain(VP)
    middle, clean = kernel[40], torch.tensor(False)
    wrong = Prediction(x0 * 0.9)
    for fraction, name in ((0.0, "small"), (1.0, "large")):
        learned = Prediction(wrong.x0, torch.full_like(x0, fraction))
        torch.testing.assert_close(
            term(learned, x0, middle, clean, variance="learned"), term(wrong, x0, middle, clean, variance=name)
        )
    diagonal = Prediction(wrong.x0, torch.full_like(x0, float(middle.log_var_small)))
    torch.testing.assert_close(
        term(diagonal, x0, middle, clean, variance="diagonal"), term(wrong, x0, middle, clean, variance="small")
    )


def test_a_batch_may_mix_steps_and_the_last_step() -> None:
    x0 = codes(4)
    index = torch.tensor([3, 99, 50, 99])
    kernel = Kernel.chain(VP)
    mixed = term(Prediction(x0 * 0.9), x0, kernel[index], index == 99, variance="large")
    alone = [
        term(Prediction(x0[i : i + 1] * 0.9), x0[i : i + 1], kernel[j], j == 99, variance="large")
        for i, j in enumerate(index)
    ]
    torch.testing.assert_close(mixed, torch.cat(alone))


def test_the_prior_term_of_ddpm_is_small_and_scale_free() -> None:
    x0 = codes()
    level = schedules.linear(1000).levels[-1]
    assert (prior_bits(x0, level) < 2.9e-5).all()
    torch.testing.assert_close(prior_bits(x0, level.scaled(7.0)), prior_bits(x0, level))
    assert (prior_bits(x0, Level.of(0.0, 1.0)) == 0).all()


def test_bad_input_is_refused_with_a_remedy() -> None:
    x0 = codes()
    with pytest.raises(ValueError, match="Did you mean 'learned'"):
        vlb(Oracle(x0), x0, VP, noise=noise_for(x0), variance="lerned")
    with pytest.raises(ValueError, match="last level is clean"):
        vlb(Oracle(x0), x0, VP[:-1], noise=noise_for(x0))
    with pytest.raises(ValueError, match="returns None"):
        list(vlb(Oracle(x0), x0, VP, noise=noise_for(x0), variance="learned"))
