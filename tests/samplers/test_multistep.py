"""The integrals of the higher-order samplers, the equalities between samplers, and refused options."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sfumato import grids, schedules
from sfumato.core import exact, find
from sfumato.core.denoiser import Prediction
from sfumato.core.level import Level
from sfumato.samplers import _multistep as m

HIGHER = ("adams", "deis", "dpmpp", "dpmpp-sde", "pndm", "singlestep", "unipc")


def gaussian() -> exact.Gaussian:
    return exact.Gaussian(
        torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64), torch.tensor([1.0, 0.25, 0.04], dtype=torch.float64)
    )


def draws(step: int = 0, seed: int = 0, shape: tuple[int, ...] = (8, 3)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1000 * seed + step), dtype=torch.float64)


def variance_preserving(grid: Level) -> Level:
    return grid.scaled(1 / torch.hypot(grid.alpha, grid.sigma))


def walk(name: str, grid: Level, x: torch.Tensor | None = None, denoiser=None, **options) -> torch.Tensor:
    x = grid.sigma[0] * draws(seed=1) if x is None else x
    steps = find.find("sampler", name)(denoiser or gaussian(), x, grid, noise=draws, **options)
    return torch.stack([state.x for state in steps])


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


GRIDS = {
    "karras": grids.karras(12),
    "vp": variance_preserving(grids.karras(12)),
    "table": grids.trailing(schedules.linear().levels, 12),
    "not clean": grids.karras(12)[:-1],
    "flow": grids.flow(12),
}


@pytest.mark.parametrize("z", [-30.0, -3.0, -1.0, -0.999, -0.1, -1e-9, 0.0, 1e-5, 0.3, 1.0, 5.0])
def test_phi_is_its_integral(z):
    """phi_k(z) = int_0^1 e^{(1 - s) z} s^{k-1} / (k-1)! ds."""
    places, mass = np.polynomial.legendre.leggauss(60)
    s, mass = (places + 1) / 2, mass / 2
    for k, value in enumerate(m.phi(z, 4), start=1):
        integral = float((mass * np.exp((1 - s) * z) * s ** (k - 1)).sum()) / math.factorial(k - 1)
        assert value == pytest.approx(integral, rel=1e-13)


def test_weights_are_those_of_the_textbook():
    """Adams-Bashforth of order 4, 55/24 -59/24 37/24 -9/24, and Adams-Moulton of order 3, 5/12 8/12 -1/12."""
    bashforth = m.weights([-1.0, -2.0, -3.0], m.uniform_moments(3))
    assert bashforth == pytest.approx([-59 / 24, 37 / 24, -9 / 24], rel=1e-13)
    assert 1 - sum(bashforth) == pytest.approx(55 / 24, rel=1e-13)
    assert m.weights([1.0, -1.0], m.uniform_moments(2)) == pytest.approx([5 / 12, -1 / 12], rel=1e-13)


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("predict", ["x0", "noise"])
def test_a_step_integrates_polynomials_exactly(predict, eta):
    """A parabola of P in lambda, through three values, against quadrature of the variation-of-constants formula."""
    if predict == "noise" and eta:
        pytest.skip("the SDE is in data prediction only")
    grid = m.points(Level.of([0.3, 0.35, 0.5, 0.8], [0.9, 0.8, 0.5, 0.3]))
    t, s = grid[2], grid[3]

    def value(lam):
        return 0.4 - 0.7 * lam + 0.3 * lam**2

    x = torch.tensor([[0.2]], dtype=torch.float64)
    others = [(at, torch.full_like(x, value(at.lam))) for at in (grid[1], grid[0])]
    here = torch.full_like(x, value(t.lam))
    x0 = here if predict == "x0" else (x - t.sigma * here) / t.alpha
    ours = float(m.exponential(x, x0, t, s, others, predict=predict, eta=eta))
    places, mass = np.polynomial.legendre.leggauss(40)
    lam, mass = t.lam + (s.lam - t.lam) * (places + 1) / 2, mass * (s.lam - t.lam) / 2
    if predict == "x0":
        rate = 1 + eta
        integral = s.alpha * rate * (mass * np.exp(rate * (lam - s.lam)) * value(lam)).sum()
        expected = s.sigma / t.sigma * math.exp(-eta * (s.lam - t.lam)) * float(x) + integral
    else:
        expected = s.alpha / t.alpha * float(x) - s.alpha * (mass * np.exp(-lam) * value(lam)).sum()
    assert ours == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("name", GRIDS)
def test_first_order_is_ddim(name):
    grid = GRIDS[name]
    expected = walk("ddim", grid)
    for sampler in ("dpmpp", "deis", "pndm", "singlestep"):
        assert gap(walk(sampler, grid, order=1), expected) < 1e-12
    assert gap(walk("dpmpp", grid, order=1, predict="noise"), expected) < 1e-12
    assert gap(walk("adams", grid, order=1, gauge="flow"), expected) < 1e-12


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_first_order_with_noise_is_ddim(name, eta):
    """Ending a step at a cleaner level and adding noise is DDIM with eta; at eta = 1 so is the reverse SDE."""
    expected = walk("ddim", GRIDS[name], eta=eta)
    assert gap(walk("singlestep", GRIDS[name], order=1, eta=eta), expected) < 1e-12
    if eta == 1:
        assert gap(walk("dpmpp-sde", GRIDS[name], order=1), expected) < 1e-12


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_no_noise_is_the_ode(name, order):
    assert gap(walk("dpmpp-sde", GRIDS[name], order=order, eta=0.0), walk("dpmpp", GRIDS[name], order=order)) < 1e-12


@pytest.mark.parametrize("name", ["karras", "vp", "table", "not clean"])
@pytest.mark.parametrize("order", [2, 3])
def test_deis_in_its_special_coordinates(name, order):
    """In ln rho it is DPM-Solver with exact moments; in rho it is Adams-Bashforth."""
    grid = GRIDS[name]
    solver = walk("dpmpp", grid, order=order, predict="noise", moments="exact")
    assert gap(walk("deis", grid, order=order, coordinate="logrho"), solver) < 1e-12
    inner = grid[:-1] if grid.sigma[-1] == 0 else grid  # at the clean level adams keeps its order
    bashforth = walk("adams", inner, order=order, gauge="ve")
    assert gap(walk("deis", inner, order=order, coordinate="rho"), bashforth) < 1e-11


def test_vp_time_of_deis_inverts_the_schedule():
    t = torch.linspace(0.001, 1, 50, dtype=torch.float64)
    from sfumato.samplers.deis import _vp_time

    assert np.allclose(_vp_time(schedules.vp()(t).nsr.log().numpy()), t.numpy(), rtol=1e-11, atol=0)


@pytest.mark.parametrize("sampler", HIGHER)
def test_the_scale_of_a_level_does_not_matter(sampler):
    """A grid in VE and the same in VP scaling end at the same image: D(k x; k alpha, k sigma) = D(x; alpha, sigma)."""
    ve, vp = GRIDS["karras"], GRIDS["vp"]
    n = draws(seed=2)
    ends = [walk(sampler, grid, x=float(grid.sigma[0]) * n)[-1] for grid in (ve, vp)]
    assert gap(ends[0], ends[1]) < 1e-11


@pytest.mark.parametrize("sampler", HIGHER)
@pytest.mark.parametrize("name", GRIDS)
def test_x_stays_in_its_precision_and_the_label_arrives(sampler, name):
    label, seen = torch.tensor([0, -1]), []

    def denoiser(x, level, label=None):
        seen.append(label)
        return Prediction(0.5 * x)

    grid = GRIDS[name]
    x = torch.ones(2, 1, 4, 4)
    states = list(find.find("sampler", sampler)(denoiser, x, grid, noise=lambda step: torch.zeros_like(x), label=label))
    assert len(states) == len(grid) - 1
    assert all(state.x.dtype == torch.float32 and bool(state.x.isfinite().all()) for state in states)
    assert seen and all(given is label for given in seen)


@pytest.mark.parametrize("sampler", HIGHER)
def test_unknown_orders_are_refused(sampler):
    with pytest.raises(ValueError, match="order must be between 1 and [34]; got 5"):
        walk(sampler, GRIDS["karras"], order=5)


@pytest.mark.parametrize(
    ("sampler", "options", "message"),
    [
        ("dpmpp", {"predict": "nois"}, "Did you mean 'noise'"),
        ("dpmpp", {"moments": "exakt"}, "Did you mean 'exact'"),
        ("dpmpp-sde", {"moments": "heun"}, "Available: exact, midpoint"),
        ("dpmpp-sde", {"eta": -0.1}, "eta must be >= 0 .* got -0.1"),
        ("deis", {"coordinate": "log"}, "Did you mean 'logrho'"),
        ("pndm", {"warmup": "rk"}, "Available: euler, heun"),
        ("singlestep", {"eta": 1.5}, r"eta must be in \[0, 1\]; got 1.5"),
        ("unipc", {"variant": "bh3"}, "Did you mean 'bh[12]'"),
        ("adams", {"gauge": "vpp"}, "Unknown gauge 'vpp'"),
    ],
)
def test_unknown_options_are_refused(sampler, options, message):
    with pytest.raises(ValueError, match=message):
        walk(sampler, GRIDS["karras"], **options)


def test_adams_in_ve_refuses_pure_noise():
    with pytest.raises(ValueError, match="Use gauge 'flow' or 'vp'"):
        walk("adams", GRIDS["flow"], gauge="ve")
