"""Autoguidance, intervals, classifier guidance and thresholds: closed forms, costs, composition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sfumato import grids, schedules
from sfumato.core.denoiser import Counted, Prediction
from sfumato.core.exact import Gaussian, GaussianMixture
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level, like
from sfumato.core.noise import SamplingNoise, normal
from sfumato.guidance.autoguidance import autoguidance
from sfumato.guidance.cfg import cfg
from sfumato.guidance.classifier import classifier, gradient
from sfumato.guidance.interval import interval
from sfumato.guidance.threshold import threshold
from sfumato.samplers.ancestral import ancestral
from sfumato.samplers.ddim import ddim

F64 = torch.float64
LEVEL = Level.of(0.8, 0.6)


def mixture() -> GaussianMixture:
    parts = [
        Gaussian(torch.tensor([1.0, 0.5], dtype=F64), torch.tensor([0.3, 0.1], dtype=F64)),
        Gaussian(torch.tensor([-0.5, -1.0], dtype=F64), torch.tensor([0.1, 0.4], dtype=F64)),
        Gaussian(torch.tensor([0.0, 1.0], dtype=F64), torch.tensor([0.2, 0.2], dtype=F64)),
    ]
    return GaussianMixture(torch.tensor([0.2, 0.3, 0.5], dtype=F64), parts)


def points(count: int = 6) -> Tensor:
    return normal(range(count), (2,), purpose="points", dtype=F64)


def bayes(exact: GaussianMixture):
    """The exact noisy classifier: logits ln w_k + ln p_k(x)."""

    def logits(x: Tensor, level: Level) -> Tensor:
        log_p = torch.stack([c.log_density(x, level) for c in exact.components], 1)
        return log_p + exact.weights.log()

    return logits


LABEL = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("level", [LEVEL, Level.of(1.0, 2.0), Level.of(1.0, [0.1, 0.5, 1.0, 2.0, 5.0, 9.0])])
def test_bayes_classifier_turns_the_unconditional_model_into_the_conditional(level: Level) -> None:
    """At scale 1 the exact classifier gives the exact conditional denoiser, at any scale of x: Bayes' rule."""
    exact, x = mixture(), points()
    guided = classifier(exact.__class__(exact.weights, exact.components), bayes(exact))

    def unconditional(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        return exact(x, level)

    guided = classifier(unconditional, bayes(exact))
    torch.testing.assert_close(guided(x, level, LABEL).x0, exact(x, level, LABEL).x0, rtol=1e-9, atol=1e-10)


def test_classifier_and_classifier_free_guidance_agree_on_exact_models() -> None:
    """D + s sigma^2/alpha grad ln p(y|x) = D + w (D_y - D) with s = w."""
    exact, x = mixture(), points()

    def unconditional(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        return exact(x, level)

    one = classifier(unconditional, bayes(exact), scale=2.5)(x, LEVEL, LABEL).x0
    torch.testing.assert_close(one, cfg(exact, 2.5)(x, LEVEL, LABEL).x0, rtol=1e-9, atol=1e-10)


def test_classifier_guidance_on_top_of_a_conditional_model() -> None:
    """Guiding the conditional model by scale s equals guiding the unconditional one by 1 + s."""
    exact, x = mixture(), points()
    got = classifier(exact, bayes(exact), scale=1.5)(x, LEVEL, LABEL).x0
    torch.testing.assert_close(got, cfg(exact, 2.5)(x, LEVEL, LABEL).x0, rtol=1e-9, atol=1e-10)


def test_algorithm_1_shifts_the_mean_by_variance_times_gradient() -> None:
    """One ancestral step with `shift` against the same step without."""
    exact, x = mixture(), points()
    grid = grids.respaced(schedules.linear().levels, 10)
    noise = SamplingNoise(range(6), (2,), dtype=F64)
    shift = gradient(bayes(exact), 2.0)
    for variance, log_var in (("small", "log_var_small"), ("large", "log_var_large")):
        with_shift = next(ancestral(exact, x, grid, noise=noise, variance=variance, shift=shift, label=LABEL))
        without = next(ancestral(exact, x, grid, noise=noise, variance=variance, label=LABEL))
        var = getattr(Kernel.between(grid[1], grid[0]), log_var).exp()
        want = without.x + var * shift(x, grid[0], LABEL)
        torch.testing.assert_close(with_shift.x, want, rtol=1e-12, atol=1e-14)


def test_classifier_gradients_need_no_caller_grad_mode_and_leave_x_alone() -> None:
    exact, x = mixture(), points()
    with torch.no_grad():
        got = gradient(bayes(exact))(x, LEVEL, LABEL)
    assert not x.requires_grad and not got.requires_grad and got.isfinite().all()


def test_scale_0_is_bitwise_the_model_and_never_asks_the_classifier() -> None:
    def never(x: Tensor, level: Level) -> Tensor:
        raise AssertionError("asked")

    exact, x = mixture(), points()
    assert torch.equal(classifier(exact, never, scale=0.0)(x, LEVEL, LABEL).x0, exact(x, LEVEL, LABEL).x0)


def test_classifiers_need_labels_they_know() -> None:
    exact, x = mixture(), points()
    guided = classifier(exact, bayes(exact))
    with pytest.raises(ValueError, match="needs labels to guide towards"):
        guided(x, LEVEL)
    with pytest.raises(ValueError, match="knows the labels 0 to 2; got -1 to 1"):
        guided(x, LEVEL, torch.tensor([0, 1, -1, 0, 1, 1]))


def test_autoguidance_extrapolates_from_the_weak_model() -> None:
    """Strong N(0, 1), weak N(0, 4): the gain is weak + w (strong - weak); w = 1 is bitwise one forward."""
    strong = Counted(Gaussian(torch.zeros(2, dtype=F64), torch.ones(2, dtype=F64)))
    weak = Counted(Gaussian(torch.zeros(2, dtype=F64), torch.full((2,), 4.0, dtype=F64)))
    x, level = points(), Level.of(1.0, 1.0)
    torch.testing.assert_close(autoguidance(strong, weak, 3.0)(x, level).x0, (0.8 + 3 * (0.5 - 0.8)) * x)
    assert (strong.nfe, weak.nfe) == (1, 1)
    assert torch.equal(autoguidance(strong, weak, 1.0)(x, level).x0, strong.denoiser(x, level).x0)
    assert (strong.nfe, weak.nfe) == (2, 1)
    each = autoguidance(strong, weak, torch.tensor([1.0, 0.0] * 3))(x, level).x0
    torch.testing.assert_close(each, torch.tensor([0.5, 0.8] * 3, dtype=F64).unsqueeze(1) * x)


def constant(value: float, v: float | None = None):
    def denoiser(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        return Prediction(torch.full_like(x, value), None if v is None else torch.full_like(x, v))

    return denoiser


def test_interval_calls_only_what_it_needs() -> None:
    inside, outside = Counted(constant(1.0)), Counted(constant(2.0))
    switched, x = interval(inside, outside, 0.5, 2.0), points()
    for nsr, value in [(0.4, 2.0), (0.5, 1.0), (2.0, 1.0), (2.1, 2.0)]:
        assert float(switched(x, Level.of(1.0, nsr)).x0[0, 0]) == value
    assert (inside.nfe, outside.nfe) == (2, 2)
    each = switched(x, Level.of(1.0, [0.1, 0.6, 3.0, 1.0, 0.2, 2.0])).x0[:, 0]
    assert each.tolist() == [2.0, 1.0, 2.0, 1.0, 2.0, 1.0]


def test_interval_of_cfg_is_cfg_with_an_interval() -> None:
    exact, x = mixture(), points()
    for nsr in (0.1, 1.0, 10.0):
        level = Level.of(1.0, nsr)
        one = interval(cfg(exact, 3.0), exact, 0.5, 2.0)(x, level, LABEL).x0
        assert torch.equal(one, cfg(exact, 3.0, (0.5, 2.0))(x, level, LABEL).x0)


def test_interval_mixes_variances_only_if_both_have_them() -> None:
    x, level = points(2), Level.of(1.0, [0.1, 1.0])
    both = interval(constant(1.0, 0.3), constant(2.0, 0.7), 0.5, 2.0)(x, level)
    assert both.v is not None and both.v[:, 0].tolist() == [0.7, 0.3]
    with pytest.raises(ValueError, match="only one learns its variance"):
        interval(constant(1.0, 0.3), constant(2.0), 0.5, 2.0)(x, level)
    with pytest.raises(ValueError, match="0 <= lo < hi"):
        interval(constant(1.0), constant(2.0), 2.0, 2.0)


def test_static_threshold_is_the_samplers_clip() -> None:
    """A wrapped denoiser and the option `clip` are the same walk, bitwise."""
    exact = mixture()
    grid = grids.respaced(schedules.linear().levels, 10)
    noise = SamplingNoise(range(6), (2,), dtype=F64)
    for sampler in (ancestral, ddim):
        *_, wrapped = sampler(threshold(exact, 0.5), noise.start(), grid, noise=noise)
        *_, option = sampler(exact, noise.start(), grid, noise=noise, clip=0.5)
        assert torch.equal(wrapped.x, option.x)
        assert float(option.x.abs().max()) <= 0.5


def test_dynamic_threshold_shrinks_each_image_by_its_own_quantile() -> None:
    values = torch.tensor([[0.1, -0.2, 0.3, 0.5], [1.0, -2.0, 3.0, 4.0]]).reshape(2, 1, 2, 2)

    def denoiser(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        return Prediction(values, values)

    got = threshold(denoiser, quantile=0.5)(values, LEVEL)
    assert torch.equal(got.x0[0], values[0])  # within bounds: unchanged
    s = 2.5  # the median of |x0|
    torch.testing.assert_close(got.x0[1], (values[1].clamp(-s, s) / s))
    assert torch.equal(got.v, values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"quantile in \(0, 1\)"):
        threshold(denoiser, quantile=1.0)
    with pytest.raises(ValueError, match="bound > 0"):
        threshold(denoiser, bound=0.0)


def test_guidance_composes() -> None:
    """threshold(interval(classifier(cfg))) is one more denoiser, and equals the arithmetic done by hand."""
    exact, x = mixture(), points()
    composed = threshold(interval(classifier(cfg(exact, 2.0), bayes(exact), 0.5), exact, 0.1, 5.0), 0.9)
    towards = like(LEVEL.sigma**2 / LEVEL.alpha, x) * gradient(bayes(exact), 0.5)(x, LEVEL, LABEL)
    by_hand = (cfg(exact, 2.0)(x, LEVEL, LABEL).x0 + towards).clamp(-0.9, 0.9)
    torch.testing.assert_close(composed(x, LEVEL, LABEL).x0, by_hand)
    noise = SamplingNoise(range(6), (2,), dtype=F64)
    *_, last = ddim(composed, noise.start() * 80, grids.karras(8), noise=noise, label=LABEL)
    assert bool(last.x.isfinite().all())
