"""Classifier-free guidance: w = 1 is bitwise nothing, every call costs what it says, and the mean moves as derived."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sfumato import conditioning, grids
from sfumato.core import target as targets
from sfumato.core.denoiser import NULL, Preconditioned, Prediction, unit_variance
from sfumato.core.exact import Gaussian, GaussianMixture
from sfumato.core.level import Level
from sfumato.core.noise import SamplingNoise, normal
from sfumato.guidance.cfg import by_class, cfg
from sfumato.samplers.heun import heun

F64 = torch.float64
LEVEL = Level.of(0.8, 0.6)
LABEL = torch.tensor([0, 1, 2, 0])


class Spy:
    """A denoiser whose x0 is label + 1 (0 for NULL), and whose variance is that too; it remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, Tensor | None]] = []

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        assert level.shape in ((), (len(x),))
        self.calls.append((len(x), label))
        value = torch.zeros(len(x)) if label is None else label + 1
        value = value.to(x).reshape(-1, *[1] * (x.ndim - 1)).expand_as(x)
        return Prediction(value, value)


def images(count: int = 4) -> Tensor:
    return normal(range(count), (1, 2, 2), purpose="x")


def network(classes: int = 3) -> Preconditioned:
    """A real network with a label table, in float32: bitwise equality means something."""

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(1, 8, 3, padding=1)
            self.last = torch.nn.Conv2d(8, 1, 3, padding=1)
            self.table = torch.nn.Embedding(classes + 1, 8)
            generator = torch.Generator().manual_seed(5)
            for p in self.parameters():
                torch.nn.init.normal_(p, std=0.3, generator=generator)

        def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
            index = torch.zeros(len(x), dtype=torch.int64) if label is None else label + 1
            modulation = (self.table(index) + c_noise.unsqueeze(1))[:, :, None, None]
            return self.last(torch.nn.functional.silu(self.first(x) + modulation))

    return Preconditioned(
        Small(), targets.edm(0.5), c_in=unit_variance(0.5), c_noise=conditioning.quarter_log_nsr()
    ).requires_grad_(False)


@pytest.mark.parametrize("w", [1.0, 1, torch.ones(()), torch.ones(4), lambda level, label: 1.0])
def test_w_1_is_bitwise_the_conditional_model_and_one_forward(w) -> None:
    """Class 0 included: it is a class like any other."""
    model, spy = network(), Spy()
    for label in (LABEL, torch.zeros(4, dtype=torch.int64)):
        assert torch.equal(cfg(model, w)(images(), LEVEL, label).x0, model(images(), LEVEL, label).x0)
    cfg(spy, w)(images(), LEVEL, LABEL)
    assert [count for count, _ in spy.calls] == [4]
    assert spy.calls[0][1] is LABEL


def test_w_0_is_bitwise_the_unconditional_model_and_one_forward() -> None:
    model, spy = network(), Spy()
    assert torch.equal(cfg(model, 0.0)(images(), LEVEL, LABEL).x0, model(images(), LEVEL).x0)
    cfg(spy, 0.0)(images(), LEVEL, LABEL)
    assert [count for count, _ in spy.calls] == [4]


def test_both_branches_are_one_forward() -> None:
    spy = Spy()
    out = cfg(spy, 3.0)(images(), LEVEL, LABEL)
    assert len(spy.calls) == 1
    count, label = spy.calls[0]
    assert count == 8 and label is not None and label.tolist() == [0, 1, 2, 0, NULL, NULL, NULL, NULL]
    assert out.x0[:, 0, 0, 0].tolist() == [3.0, 6.0, 9.0, 3.0]  # 0 + 3 (label + 1 - 0)
    assert out.v is not None and out.v[:, 0, 0, 0].tolist() == [1.0, 2.0, 3.0, 1.0]  # the conditional variance


def test_extrapolation_of_a_network() -> None:
    """D_w = D + w (D_y - D), whether the levels are one or one per image."""
    model, x = network(), images()
    want = model(x, LEVEL).x0 + 2.5 * (model(x, LEVEL, LABEL).x0 - model(x, LEVEL).x0)
    for level in (LEVEL, Level.of([0.8] * 4, [0.6] * 4)):
        torch.testing.assert_close(cfg(model, 2.5)(x, level, LABEL).x0, want, rtol=1e-5, atol=1e-6)


def test_guiding_x0_is_guiding_the_noise() -> None:
    """The noise that the guided x0 implies is eps + w (eps_y - eps): D is affine in every output."""
    model, x = network(), images()

    def noise(x0: Tensor) -> Tensor:
        return (x - 0.8 * x0) / 0.6

    plain, conditional = noise(model(x, LEVEL).x0), noise(model(x, LEVEL, LABEL).x0)
    guided = noise(cfg(model, 2.5)(x, LEVEL, LABEL).x0)
    torch.testing.assert_close(guided, plain + 2.5 * (conditional - plain), rtol=1e-4, atol=1e-5)


def test_weights_per_image_and_per_class() -> None:
    x, got = images(), []
    for w in (torch.tensor([2.0, 1.0, 0.0, 2.0]), by_class([2.0, 1.0, 0.0])):
        got.append(cfg(Spy(), w)(x, LEVEL, LABEL).x0[:, 0, 0, 0].tolist())
    assert got[0] == got[1] == [2.0, 2.0, 0.0, 2.0]
    mixed = torch.tensor([0, NULL, 2, 1])
    assert cfg(Spy(), by_class([3.0, 3.0, 3.0]))(x, LEVEL, mixed).x0[:, 0, 0, 0].tolist() == [3.0, 0.0, 9.0, 6.0]


def test_a_schedule_of_weights() -> None:
    guided = cfg(Spy(), lambda level, label: 1.0 + level.nsr)
    x = images()
    assert guided(x, Level.of(1.0, 2.0), LABEL).x0[1, 0, 0, 0] == 6.0
    each = guided(x, Level.of(1.0, [0.0, 1.0, 2.0, 3.0]), LABEL).x0[:, 0, 0, 0]
    assert each.tolist() == [1.0, 4.0, 9.0, 4.0]


def test_the_interval_confines_guidance_and_its_cost() -> None:
    spy, x = Spy(), images()
    guided = cfg(spy, 3.0, interval=(0.3, 2.0))
    for nsr, cost in [(0.29, 4), (0.3, 8), (2.0, 8), (2.1, 4)]:
        spy.calls.clear()
        value = guided(x, Level.of(1.0, nsr), LABEL).x0[0, 0, 0, 0]
        assert [count for count, _ in spy.calls] == [cost]
        assert float(value) == (3.0 if cost == 8 else 1.0)


def test_calls_of_a_guided_walk() -> None:
    """Eleven Heun calls; those inside the interval carry both branches, the others one."""
    spy, x = Spy(), images()
    grid = grids.karras(6)
    noise = SamplingNoise(range(4), (1, 2, 2))
    list(heun(cfg(spy, 3.0, interval=(0.1, 5.0)), x, grid, noise=noise, label=LABEL))
    inside = sum(bool(0.1 <= float(n) <= 5) * (2 if i else 1) for i, n in enumerate(grid.nsr[:-1]))
    assert len(spy.calls) == 11
    assert sum(count == 8 for count, _ in spy.calls) == inside


def test_the_mean_of_a_guided_gaussian() -> None:
    """For classes N(+-m, s^2) guided towards one class, D_w has the closed form D + w (D_y - D)."""
    m, s = torch.tensor([1.0, 0.0], dtype=F64), torch.full((2,), 0.25, dtype=F64)
    exact = GaussianMixture(torch.tensor([0.5, 0.5], dtype=F64), [Gaussian(m, s), Gaussian(-m, s)])
    x, level = normal(range(5), (2,), purpose="x", dtype=F64), Level.of(1.0, 0.8)
    got = cfg(exact, 2.0)(x, level, torch.zeros(5, dtype=torch.int64)).x0
    # both classes shrink x alike; only the offset differs, by the posterior mean of the class sign
    shrink = s / (s + 0.64)
    sign = torch.tanh(x @ m / (0.25 + 0.64)).unsqueeze(1)
    want = shrink * x + (1 - shrink) * m * (sign + 2 * (1 - sign))
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("label", [None, torch.full((4,), NULL)])
def test_guidance_needs_a_label(label: Tensor | None) -> None:
    for w in (2.0, torch.tensor([1.0, 1.0, 2.0, 1.0]), lambda level, label: 1.0):
        with pytest.raises(ValueError, match="needs a label to guide towards.*w = 1"):
            cfg(Spy(), w)(images(), LEVEL, label)
    for w in (0.0, 1.0):
        assert float(cfg(Spy(), w)(images(), LEVEL, label).x0.abs().max()) == 0.0


def test_intervals_are_ordered() -> None:
    with pytest.raises(ValueError, match="0 <= lo < hi"):
        cfg(Spy(), 2.0, interval=(2.0, 0.5))
