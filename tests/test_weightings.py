"""Weightings: each is the loss it says it is, and F-space changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sfumato import schedules, weightings
from sfumato.core import target as targets
from sfumato.core.denoiser import Target, skip_and_out
from sfumato.core.find import entries
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level
from sfumato.weightings import Weighting

F64 = torch.float64
TABLE = schedules.linear(100).levels
VP = TABLE[[1, 10, 50, 100]]
LEVELS = {
    "vp": VP,
    "ve": Level.of(1.0, [0.002, 0.5, 1.0, 80.0]),
    "flow": Level.of([0.99, 0.5, 0.01], [0.01, 0.5, 0.99]),
}


def in_f_space(weighting: Weighting, target: Target, level: Level) -> Tensor:
    return weighting(level, target) * skip_and_out(target, level)[1] ** 2


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(
    ("weighting", "target"),
    [
        (weightings.simple(), targets.eps()),
        (weightings.simple(), targets.score()),
        (weightings.x0(), targets.x0()),
        (weightings.snr(plus=1.0), targets.v()),
        (weightings.flow(), targets.flow()),
        (weightings.edm(0.3), targets.edm(0.3)),
        (weightings.edm(1.0), targets.v()),
        *((weightings.native(), t) for t in (targets.eps(), targets.v(), targets.flow(), targets.edm(0.7))),
    ],
)
def test_one_in_f_space(weighting: Weighting, target: Target, levels: str) -> None:
    """w c_out^2 = 1: the plain error of the noise, image, velocity or EDM output."""
    got = in_f_space(weighting, target, LEVELS[levels])
    torch.testing.assert_close(got, torch.ones_like(got), rtol=1e-12, atol=0)


def test_the_bounded_velocity_error_is_the_plain_one_until_the_bound() -> None:
    level = Level.of([0.0, 0.5, 0.95, 0.99], [1.0, 0.5, 0.05, 0.01])
    got = weightings.flow(least=0.05)(level, targets.x0())
    torch.testing.assert_close(got, torch.tensor([1.0, 4.0, 400.0, 400.0], dtype=F64), rtol=1e-12, atol=0)
    assert torch.equal(weightings.flow()(level, targets.x0()), ((level.alpha + level.sigma) / level.sigma) ** 2)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (weightings.simple(), weightings.snr()),
        (weightings.simple(), weightings.p2(gamma=0.0)),
        (weightings.simple(), weightings.min_snr(gamma=1e12)),
        (weightings.x0(), weightings.snr(plus=-1e12, floor=1.0)),
        (weightings.snr(plus=4.0), weightings.edm(0.5)),
    ],
)
def test_equalities(one: Weighting, other: Weighting) -> None:
    for level in LEVELS.values():
        torch.testing.assert_close(one(level, targets.eps()), other(level, targets.eps()), rtol=1e-12, atol=0)


def test_min_snr_and_truncated_snr() -> None:
    level = Level.of(1.0, [0.1, 1.0, 10.0])
    assert weightings.min_snr(5.0)(level, targets.x0()).tolist() == pytest.approx([5.0, 1.0, 0.01])
    assert weightings.snr(floor=1.0)(level, targets.x0()).tolist() == pytest.approx([100.0, 1.0, 1.0])


def test_sigmoid_is_the_noise_error_times_a_sigmoid() -> None:
    """e^b sigmoid(l - b) = snr sigmoid(b - l)."""
    level = LEVELS["ve"]
    want = level.log_snr.exp() * torch.sigmoid(2.0 - level.log_snr)
    torch.testing.assert_close(weightings.sigmoid(2.0)(level, targets.eps()), want, rtol=1e-12, atol=0)


def test_vlb_is_half_the_loss_of_snr() -> None:
    """The KL weight k.x0^2 / (2 var) equals (snr_s - snr_t) / 2 at every step but the last."""
    snr = TABLE.log_snr.exp()
    got = weightings.vlb(TABLE)(TABLE[1:], targets.eps())
    torch.testing.assert_close(got[1:], (snr[1:-1] - snr[2:]) / 2, rtol=1e-9, atol=0)
    k = Kernel.between(TABLE[1], TABLE[2])
    torch.testing.assert_close(got[0], 0.5 * (-k.log_var_small).exp(), rtol=1e-12, atol=0)


def test_vlb_of_the_posterior_mean_is_one_over_twice_the_variance() -> None:
    """A network that outputs mu~ is trained by |mu~ - mu|^2 / (2 var): DDPM, eq. (8)."""
    got = in_f_space(weightings.vlb(TABLE), targets.mu_tilde(TABLE), TABLE[2:])
    var = Kernel.between(TABLE[1:-1], TABLE[2:]).log_var_small.exp()
    torch.testing.assert_close(got, 1 / (2 * var), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", entries("weighting"))
def test_scale_of_x_is_irrelevant(name: str) -> None:
    """w weighs an error of x0, so it is a function of the nsr alone (native: the scaled target's own)."""
    entry = entries("weighting")[name]
    weighting = entry(**({"table": TABLE} if name == "vlb" else {}))
    for factor in (0.1, 7.0):
        got, want = weighting(VP.scaled(factor), targets.edm(0.5)), weighting(VP, targets.edm(0.5))
        torch.testing.assert_close(got, want, rtol=1e-9, atol=0)
    assert bool((want > 0).all()) and want.shape == VP.shape and want.dtype == F64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: weightings.edm(0.0), "sigma_data must be positive"),
        (lambda: weightings.min_snr(-1.0), "gamma must be positive"),
        (lambda: weightings.p2(k=0.0), "k must be positive"),
    ],
)
def test_mistakes(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_vlb_knows_only_its_table() -> None:
    with pytest.raises(ValueError, match="knows 100 discrete levels"):
        weightings.vlb(TABLE)(Level.of(1.0, [0.123]), targets.eps())
