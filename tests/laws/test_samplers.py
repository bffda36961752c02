"""Laws of the four foundation samplers: which are equal, which are exact, and how fast they converge."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from sfumato import conditioning, grids, schedules
from sfumato.core import gauge as gauges
from sfumato.core.denoiser import Counted, Prediction, State
from sfumato.core.exact import Gaussian, GaussianMixture
from sfumato.core.gauge import Gauge
from sfumato.core.level import Level
from sfumato.core.noise import SamplingNoise, normal
from sfumato.samplers.ancestral import ancestral
from sfumato.samplers.ddim import ddim, encode
from sfumato.samplers.euler import euler
from sfumato.samplers.heun import heun

F64 = torch.float64
DATA = Gaussian(torch.tensor([0.7, -0.4, 0.2], dtype=F64), torch.tensor([1.5, 0.3, 0.02], dtype=F64))
GRIDS = {
    "karras": grids.karras(12),
    "respaced": grids.respaced(schedules.linear().levels, 12),
    "cosine": grids.trailing(schedules.cosine().levels, 12),
    "flow": grids.flow(12),
}


def noise_of(count: int = 4) -> SamplingNoise:
    return SamplingNoise(range(count), (3,), dtype=F64)


def end(walk: Iterator[State]) -> Tensor:
    *_, last = walk
    return last.x


def silent(step: int) -> Tensor:
    raise AssertionError("asked for noise")


@pytest.mark.parametrize("gauge", ["ve", "flow"])
@pytest.mark.parametrize("name", GRIDS)
def test_euler_is_ddim_on_linear_gauges(name: str, gauge: str) -> None:
    """On ve and flow the Euler step holds x0 and n constant, which is DDIM with eta = 0; state by state."""
    grid = GRIDS[name]
    if gauge == "ve" and float(grid.alpha[0]) == 0:
        grid = grid[1:]
    x = normal(range(4), (3,), purpose="x", dtype=F64) * float(grid.sigma[0])
    for one, other in zip(euler(DATA, x, grid, noise=silent, gauge=gauge), ddim(DATA, x, grid, noise=silent)):
        torch.testing.assert_close(one.x, other.x, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(one.x0, other.x0, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["karras", "respaced", "cosine"])
def test_ddim_with_eta_1_is_ancestral_with_the_small_variance(name: str) -> None:
    """The same noise gives the same walk, state by state; and sigma-hat is not the large variance's walk."""
    grid, noise = GRIDS[name], noise_of()
    x = noise.start() * float(grid.sigma[0])
    for one, other in zip(ddim(DATA, x, grid, noise=noise, eta=1.0), ancestral(DATA, x, grid, noise=noise)):
        torch.testing.assert_close(one.x, other.x, rtol=1e-10, atol=1e-11)


def test_sigma_hat_is_eta_1_with_the_large_noise() -> None:
    """It is ancestral sampling with the large variance, state by state, and not the walk of eta = 1."""
    grid, noise = GRIDS["respaced"], noise_of()
    x = noise.start()
    hat = list(ddim(DATA, x, grid, noise=noise, eta=1.0, sigma_hat=True))
    for one, other in zip(hat, ancestral(DATA, x, grid, noise=noise, variance="large")):
        torch.testing.assert_close(one.x, other.x, rtol=1e-10, atol=1e-11)
    assert float((hat[-1].x - end(ddim(DATA, x, grid, noise=noise, eta=1.0))).abs().max()) > 0.01


def test_the_full_table_is_the_respaced_identity() -> None:
    """Sampling on `full` and on `respaced` with all steps is one walk, bitwise."""
    table, noise = schedules.linear(40).levels, noise_of()
    one = end(ancestral(DATA, noise.start(), grids.full(table), noise=noise))
    assert torch.equal(one, end(ancestral(DATA, noise.start(), grids.respaced(table, 40), noise=noise)))


def moments(walk: Callable[..., Iterator[State]], denoiser, mean: Tensor, variance: Tensor, steps: int):
    """Return the mean and variance of a walk that is affine in x and in each step's noise (see test_contract)."""
    dim = len(mean)
    x = torch.zeros(steps + 2, dim, dtype=F64)
    x[1] = 1

    def noise(step: int) -> Tensor:
        z = torch.zeros(steps + 2, dim, dtype=F64)
        z[2 + step] = 1
        return z

    for state in walk(denoiser, x, noise=noise):
        offset, gain = state.x[0], state.x[1:] - state.x[0]
        yield state.level, offset + gain[0] * mean, gain[0] ** 2 * variance + (gain[1:] ** 2).sum(0)


def test_the_small_variance_is_exact_for_a_point() -> None:
    """If x0 is known, x_s ~ N(alpha_s x0, sigma_s^2) holds at every state of every grid: DDPM, section 3.2."""
    point = torch.tensor([0.5, -1.0], dtype=F64)

    def denoiser(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        return Prediction(point.expand_as(x))

    for name in ("karras", "respaced", "cosine"):
        grid = GRIDS[name]
        start = grid[0]

        def walk(d, x, noise, grid=grid):
            return ancestral(d, x, grid, noise=noise, variance="small")

        for level, mean, variance in moments(walk, denoiser, start.alpha * point, (start.sigma**2).expand(2), 12):
            torch.testing.assert_close(mean, level.alpha * point, rtol=1e-9, atol=1e-10)
            torch.testing.assert_close(variance, (level.sigma**2).expand(2), rtol=1e-9, atol=1e-15)


def test_the_large_variance_is_exact_for_white_noise() -> None:
    """If x0 ~ N(0, I), every x_s of a variance-preserving chain is N(0, I), up to the noiseless last step."""
    white = Gaussian(torch.zeros(2, dtype=F64), torch.ones(2, dtype=F64))
    for name in ("respaced", "cosine"):
        grid = GRIDS[name]

        def walk(d, x, noise, grid=grid):
            return ancestral(d, x, grid, noise=noise, variance="large")

        states = list(moments(walk, white, torch.zeros(2, dtype=F64), torch.ones(2, dtype=F64), 12))
        for _, mean, variance in states[:-1]:
            torch.testing.assert_close(mean, torch.zeros(2, dtype=F64), rtol=0, atol=1e-12)
            torch.testing.assert_close(variance, torch.ones(2, dtype=F64), rtol=1e-10, atol=0)


def falling(steps: int, high: float = 8.0, low: float = 0.05) -> Level:
    """Log-SNR evenly spaced on the circle, ending noisy: the step to the clean level is first order by nature."""
    nsr = torch.linspace(math.log(high), math.log(low), steps + 1, dtype=F64).exp()
    k = 1 / torch.hypot(torch.ones_like(nsr), nsr)
    return Level(k, k * nsr)


def order(walk: Callable[[Level, Tensor], Iterator[State]]) -> float:
    """Return the measured convergence order towards the closed-form trajectory."""
    x = normal(range(6), (3,), purpose="x", dtype=F64)

    def error(steps: int) -> float:
        grid = falling(steps)
        return float((end(walk(grid, x)) - DATA.ode(x, grid[0], grid[-1])).abs().max())

    return math.log2(error(128) / error(256))


def _vp_time(nsr: Tensor) -> Tensor:
    return conditioning.vp_time(scale=1.0)(Level.of(1.0, nsr))


VP_TIME = gauges.along("vp-time", schedules.vp(), _vp_time)


@pytest.mark.parametrize("gauge", [gauges.ve, gauges.flow, gauges.vp, VP_TIME], ids=lambda g: g.name)
@pytest.mark.parametrize("midpoint", [1.0, 2 / 3, 0.5])
def test_heun_is_of_second_order_in_every_gauge(gauge: Gauge, midpoint: float) -> None:
    """Heun and Ralston alike, on the Gaussian's closed-form trajectory; the midpoint rule gains an order on it.

    In a linear gauge a Gaussian's coordinates are hyperbolas, y^2 = s^2 + u^2, on which the midpoint rule's error of
    second order vanishes. That is a fact about this test, not about the method.
    """
    measured = order(lambda grid, x: heun(DATA, x, grid, noise=silent, gauge=gauge, midpoint=midpoint))
    lucky = midpoint == 0.5 and gauge.name in ("ve", "flow")
    assert measured == pytest.approx(3 if lucky else 2, abs=0.1)


@pytest.mark.parametrize("gauge", [gauges.ve, gauges.flow, gauges.vp, VP_TIME], ids=lambda g: g.name)
def test_euler_is_of_first_order_in_every_gauge(gauge: Gauge) -> None:
    assert order(lambda grid, x: euler(DATA, x, grid, noise=silent, gauge=gauge)) == pytest.approx(1, abs=0.1)


def test_ddim_is_of_first_order() -> None:
    assert order(lambda grid, x: ddim(DATA, x, grid, noise=silent)) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("gauge", ["flow", "vp"])
def test_heun_walks_every_grid_with_2n_minus_1_calls(name: str, gauge: str) -> None:
    """From pure noise too, and closer to the exact endpoint than Euler on the same grid."""
    grid, counted = GRIDS[name], Counted(DATA)
    x = normal(range(4), (3,), purpose="x", dtype=F64) * float(grid.sigma[0])
    got = end(heun(counted, x, grid, noise=silent, gauge=gauge))
    assert counted.nfe == 2 * 12 - 1
    exact = DATA.ode(x, grid[0], grid[-1])
    plain = end(euler(DATA, x, grid, noise=silent))
    assert float((got - exact).abs().max()) < 0.5 * float((plain - exact).abs().max())


def test_the_ve_gauge_refuses_pure_noise() -> None:
    with pytest.raises(ValueError, match="needs alpha > 0"):
        end(heun(DATA, torch.ones(1, 3, dtype=F64), grids.flow(4), noise=silent))


@pytest.mark.parametrize("sampler", [euler, heun], ids=lambda s: s.__name__)
def test_churn_adds_noise_only_in_its_range_and_never_leaves_the_grid(sampler) -> None:
    """Noise is drawn at the steps whose nsr is in [s_min, s_max]; no call is noisier than the grid's start."""
    grid, asked, levels = grids.karras(18), [], []
    noise = noise_of()

    def watched(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        levels.append(float(level.nsr))
        return DATA(x, level)

    def asking(step: int) -> Tensor:
        asked.append(step)
        return noise(step)

    end(sampler(watched, noise.start() * 80, grid, noise=asking, churn=40.0, s_min=0.05, s_max=50.0))
    assert asked == [i for i, nsr in enumerate(grid.nsr[:-1].tolist()) if 0.05 <= nsr <= 50]
    assert max(levels) <= 80.0

    asked.clear()
    levels.clear()
    end(sampler(watched, noise.start() * 80, grid, noise=asking, churn=40.0))
    assert max(levels) == 80.0
    assert asked == list(range(1, 18))  # the first step is at the limit already: nothing to add

    levels.clear()
    end(sampler(watched, noise.start() * 80, grid, noise=asking, churn=40.0, nsr_max=math.inf))
    assert max(levels) == pytest.approx(80 * math.sqrt(2))


@pytest.mark.parametrize("gauge", ["ve", "flow", "vp"])
def test_churn_preserves_the_marginals(gauge: str) -> None:
    """Raising the noise and walking back is neutral: the sampled Gaussian's variance converges with churn too."""
    errors = []
    for steps in (100, 200):
        grid = falling(steps)

        def walk(d, x, noise, grid=grid):
            return heun(d, x, grid, noise=noise, gauge=gauge, churn=10.0)

        start = grid[0]
        variance = start.alpha**2 * DATA.variances + start.sigma**2
        *_, (level, mean, got) = moments(walk, DATA, start.alpha * DATA.mean, variance, steps)
        off = (mean - level.alpha * DATA.mean).abs().max()
        errors.append(float(off + (got / (level.alpha**2 * DATA.variances + level.sigma**2) - 1).abs().max()))
    assert errors[0] < 0.02 and errors[1] < errors[0] / 3  # second order


def test_inflated_churn_inflates_the_result() -> None:
    """s_noise > 1 adds more noise than the level says: the variance rises."""
    grid, start = falling(60), falling(60)[0]
    variance = start.alpha**2 * DATA.variances + start.sigma**2
    got = []
    for s_noise in (1.0, 1.05):

        def walk(d, x, noise, s_noise=s_noise):
            return heun(d, x, grid, noise=noise, churn=10.0, s_noise=s_noise)

        *_, (_, _, v) = moments(walk, DATA, start.alpha * DATA.mean, variance, 60)
        got.append(v)
    assert bool((got[1] > got[0]).all())


def test_encoding_inverts_sampling() -> None:
    """encode and ddim are inverse in the limit of many steps, and converge to it at first order."""
    x0 = DATA.mean + normal(range(5), (3,), purpose="x0", dtype=F64) * DATA.variances.sqrt()
    errors = []
    for steps in (200, 400):
        grid = grids.logsnr(steps, 0.002, 80.0)
        latent = end(encode(DATA, x0, grid))
        errors.append(float((end(ddim(DATA, latent, grid, noise=silent)) - x0).abs().max()))
    assert errors[1] < 0.05 and math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.2)


def test_encoding_approaches_the_exact_trajectory() -> None:
    """Its end is the closed-form latent at sigma_max of the image read as its first noisy level."""
    x0 = normal(range(5), (3,), purpose="x0", dtype=F64)
    grid = grids.logsnr(2000, 0.002, 80.0)
    exact = DATA.ode(x0, grid[-2], grid[0])
    torch.testing.assert_close(end(encode(DATA, x0, grid)), exact, rtol=0.02, atol=0.5)


MIXTURE = GaussianMixture(
    torch.tensor([0.3, 0.7], dtype=F64),
    [
        Gaussian(torch.tensor([1.0, 0.5], dtype=F64), torch.tensor([0.05, 0.02], dtype=F64)),
        Gaussian(torch.tensor([-0.6, -0.4], dtype=F64), torch.tensor([0.02, 0.08], dtype=F64)),
    ],
)
WALKS: dict[str, Callable[..., Iterator[State]]] = {
    "ancestral-small": lambda d, x, g, n: ancestral(d, x, g, noise=n),
    "ancestral-large": lambda d, x, g, n: ancestral(d, x, g, noise=n, variance="large"),
    "ddim-0": lambda d, x, g, n: ddim(d, x, g, noise=n),
    "ddim-0.5": lambda d, x, g, n: ddim(d, x, g, noise=n, eta=0.5),
    "heun-churned": lambda d, x, g, n: heun(d, x, g, noise=n, churn=20.0),
}


@pytest.mark.parametrize("name", WALKS)
def test_sampled_moments_of_a_mixture(name: str) -> None:
    """Mean and covariance of 4,000 samples of a Gaussian mixture, within 4 standard errors (plus 1% step error)."""
    count, steps = 4000, 150
    noise = SamplingNoise(range(count), (2,), dtype=F64)
    grid = grids.karras(steps, sigma_min=0.01, sigma_max=30.0)
    x = end(WALKS[name](MIXTURE, noise.start() * 30.0, grid, noise))
    mean, covariance = MIXTURE.mean, MIXTURE.covariance
    error = (x.mean(0) - mean).abs() / (covariance.diagonal() / count).sqrt()
    assert float(error.max()) < 4, f"mean is {error.tolist()} standard errors off"
    centred = x - mean
    products = centred.unsqueeze(2) * centred.unsqueeze(1)
    allowed = 4 * products.std(0) / count**0.5 + 0.01 * covariance.abs().max()
    assert bool(((products.mean(0) - covariance).abs() < allowed).all())


def test_options_out_of_range() -> None:
    x, grid = torch.ones(1, 3, dtype=F64), GRIDS["karras"]
    for walk, message in [
        (lambda: ddim(DATA, x, grid, noise=silent, eta=1.5), r"eta lies in \[0, 1\]"),
        (lambda: ddim(DATA, x, grid, noise=silent, eta=0.5, sigma_hat=True), "sigma_hat replaces the noise of eta = 1"),
        (lambda: heun(DATA, x, grid, noise=silent, midpoint=0.0), r"midpoint is a share of the step in \(0, 1\]"),
        (lambda: heun(DATA, x, grid, noise=silent, churn=-1.0), "churn and s_noise are >= 0"),
        (lambda: heun(DATA, x, grid, noise=silent, gauge="edm"), "Unknown gauge 'edm'. Available: ve, flow, vp"),
        (lambda: euler(DATA, x, grid, noise=silent, s_noise=-1.0), "churn and s_noise are >= 0"),
        (lambda: ancestral(DATA, x, grid, noise=silent, variance="learned"), "needs a denoiser that learns it"),
        (lambda: ancestral(DATA, x, grid, noise=silent, variance="medium"), "variance must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            end(walk())
