"""Laws of the parameterisations: one pair (a, b) says everything about a network's output."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sfumato import conditioning, schedules, weightings
from sfumato.core import target as targets
from sfumato.core.denoiser import Preconditioned, Target, skip_and_out, unit_circle, unit_line, unit_variance
from sfumato.core.exact import Empirical, Gaussian, GaussianMixture
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level, like
from sfumato.core.noise import normal, uniform

F64 = torch.float64
TABLE = schedules.cosine(100).levels
TARGETS: dict[str, Target] = {
    "x0": targets.x0(),
    "eps": targets.eps(),
    "score": targets.score(),
    "v": targets.v(),
    "flow": targets.flow(),
    "edm": targets.edm(0.5),
    "mu_tilde": targets.mu_tilde(TABLE),
}
LEVELS = TABLE[[1, 3, 30, 60, 99, 100]]


def pair(count: int = 6) -> tuple[Tensor, Tensor]:
    ids = range(count)
    return uniform(ids, (1, 2, 2), purpose="x0") * 2 - 1, normal(ids, (1, 2, 2), purpose="n", dtype=F64)


@pytest.mark.parametrize("name", TARGETS)
def test_round_trip(name: str) -> None:
    """D(x; F*) = x0: the ideal output gives back the clean image, at every level of the chain."""
    x0, n = pair()
    a, b = TARGETS[name](LEVELS)
    c_skip, c_out = skip_and_out(TARGETS[name], LEVELS)
    ideal = like(a, x0) * x0 + like(b, x0) * n
    got = like(c_skip, x0) * LEVELS.noisy(x0, n) + like(c_out, x0) * ideal
    torch.testing.assert_close(got, x0, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["x0", "v", "flow", "edm"])
def test_round_trip_from_pure_noise(name: str) -> None:
    """At alpha = 0 every target that does not ask for the noise alone still determines x0."""
    x0, n = pair()
    level = Level.of(0.0, 1.0)
    a, b = TARGETS[name](level)
    c_skip, c_out = skip_and_out(TARGETS[name], level)
    torch.testing.assert_close(c_skip * n + c_out * (a * x0 + b * n), x0, rtol=0, atol=1e-12)


def test_v_is_minus_edm_of_unit_variance() -> None:
    a, b = targets.v()(LEVELS)
    c, d = targets.edm(1.0)(LEVELS)
    torch.testing.assert_close((a, b), (-c, -d), rtol=1e-14, atol=0)


def test_v_is_the_flow_velocity_on_its_own_circle() -> None:
    """v = d x / d angle along (cos, sin), and flow = dx/dt along (1 - t, t): both are velocities of their paths."""
    angle = torch.linspace(0.1, 1.4, 7, dtype=F64)
    a, b = targets.v()(Level(angle.cos(), angle.sin()))
    torch.testing.assert_close((a, b), (-angle.sin(), angle.cos()), rtol=1e-12, atol=0)


def test_edm_has_unit_variance_and_smallest_output() -> None:
    """For data of variance sd^2 the target F* has variance a^2 sd^2 + b^2 = 1, and c_in x too, at every level."""
    for sd in (0.3, 0.5, 2.0):
        a, b = targets.edm(sd)(LEVELS)
        torch.testing.assert_close(a**2 * sd**2 + b**2, torch.ones(6, dtype=F64), rtol=1e-12, atol=0)
        scale = unit_variance(sd)(LEVELS)
        variance = scale**2 * (LEVELS.alpha**2 * sd**2 + LEVELS.sigma**2)
        torch.testing.assert_close(variance, torch.ones(6, dtype=F64), rtol=1e-12, atol=0)


def test_mu_tilde_is_the_mean_of_the_step() -> None:
    """F* = k.x0 x0 + k.xt x_t for the kernel to the next cleaner entry."""
    x0, n = pair()
    index = torch.tensor([1, 3, 30, 60, 99, 100])
    k = Kernel.between(TABLE[index - 1], TABLE[index])
    a, b = targets.mu_tilde(TABLE)(LEVELS)
    want = like(k.x0, x0) * x0 + like(k.xt, x0) * LEVELS.noisy(x0, n)
    torch.testing.assert_close(like(a, x0) * x0 + like(b, x0) * n, want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", TARGETS)
def test_the_loss_is_the_same_in_f_space(name: str) -> None:
    """w |D - x0|^2 = w c_out^2 |F - F*|^2 for any output F."""
    x0, n = pair()
    f = normal(range(10, 16), (1, 2, 2), purpose="f", dtype=F64)
    a, b = TARGETS[name](LEVELS)
    c_skip, c_out = skip_and_out(TARGETS[name], LEVELS)
    w = weightings.edm(0.5)(LEVELS, TARGETS[name])
    d = like(c_skip, f) * LEVELS.noisy(x0, n) + like(c_out, f) * f
    in_x = like(w, f) * (d - x0).square()
    in_f = like(w * c_out**2, f) * (f - like(a, f) * x0 - like(b, f) * n).square()
    torch.testing.assert_close(in_x, in_f, rtol=1e-8, atol=1e-10)


class Mix(nn.Module):
    """A nonlinear network of x and the noise level."""

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        return torch.tanh(x + x.roll(1, -1)) + torch.sin(c_noise).reshape(-1, *[1] * (x.ndim - 1))


def preconditioned() -> dict[str, Callable[..., object]]:
    angle = conditioning.angle()
    return {
        "eps": Preconditioned(Mix(), targets.eps(), c_noise=conditioning.vp_time(), c_in=unit_circle()),
        "score": Preconditioned(Mix(), targets.score(), c_noise=conditioning.log_nsr(), c_in=unit_circle()),
        "x0": Preconditioned(Mix(), targets.x0(), c_noise=angle, c_in=unit_circle()),
        "v": Preconditioned(Mix(), targets.v(), c_noise=angle, c_in=unit_circle()),
        "edm": Preconditioned(Mix(), targets.edm(0.5), c_noise=conditioning.quarter_log_nsr(), c_in=unit_variance(0.5)),
        "flow": Preconditioned(Mix(), targets.flow(), c_noise=conditioning.flow_time(), c_in=unit_line()),
        "discrete": Preconditioned(
            Mix(), targets.eps(), c_noise=conditioning.index(TABLE), c_in=unit_circle(), table=TABLE
        ),
    }


def exact() -> dict[str, Callable[..., object]]:
    g = Gaussian(torch.full((4,), 0.3, dtype=F64), torch.tensor([1.0, 0.5, 0.2, 0.1], dtype=F64))
    h = Gaussian(torch.full((4,), -0.3, dtype=F64), torch.full((4,), 0.3, dtype=F64))
    return {
        "gaussian": g,
        "mixture": GaussianMixture(torch.tensor([0.4, 0.6], dtype=F64), [g, h]),
        "empirical": Empirical(uniform(range(9), (1, 2, 2), purpose="data")),
    }


@pytest.mark.parametrize(("name", "denoiser"), [*preconditioned().items(), *exact().items()])
def test_scale_of_x_is_irrelevant(name: str, denoiser) -> None:
    """D(kx; k alpha, k sigma) = D(x; alpha, sigma): a level's scale is a change of variables, nothing else."""
    x0, n = pair()
    x = LEVELS.noisy(x0, n)
    for k in (0.05, 3.0):
        got = denoiser(k * x, LEVELS.scaled(k)).x0
        torch.testing.assert_close(got, denoiser(x, LEVELS).x0, rtol=1e-8, atol=1e-9)


def test_native_scales_are_one() -> None:
    """c_in changes nothing for a network that is called at the scale it was trained at."""
    vp, flow = schedules.vp()(torch.linspace(0, 1, 9, dtype=F64)), schedules.flow()(torch.linspace(0, 1, 9, dtype=F64))
    for scale, level in ((unit_circle(), vp), (unit_line(), flow)):
        torch.testing.assert_close(scale(level), torch.ones(9, dtype=F64), rtol=1e-15, atol=0)


def test_sigma_data_must_be_positive() -> None:
    with pytest.raises(ValueError, match="sigma_data must be positive; got 0.0"):
        targets.edm(0.0)


def test_mu_tilde_knows_only_its_table() -> None:
    with pytest.raises(ValueError, match="knows 100 discrete levels"):
        targets.mu_tilde(TABLE)(Level.of(1.0, 0.345))
