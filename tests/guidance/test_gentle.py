"""Guidance that does not burn: apg, rescale and CFG++ in their limits, in closed form, and through recipes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sfumato import grids
from sfumato.core.denoiser import Denoiser, Prediction
from sfumato.core.exact import Gaussian, GaussianMixture
from sfumato.core.level import Level
from sfumato.core.noise import normal
from sfumato.guidance.apg import along, apg
from sfumato.guidance.cfg import cfg
from sfumato.guidance.interval import interval
from sfumato.guidance.rescale import rescale
from sfumato.guidance.threshold import threshold
from sfumato.recipes.digits import edm_digits
from sfumato.runs.check import check
from sfumato.runs.making import Making
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import RecipeError, Shape
from sfumato.samplers.ddim import ddim
from sfumato.samplers.euler import euler
from sfumato.samplers.heun import heun

F64 = torch.float64
LABEL = torch.tensor([0, 1, 0, 1, 0, 1])
LEVELS = [Level.of(0.8, 0.6), Level.of(1.0, [0.1, 0.5, 1.0, 2.0, 5.0, 9.0])]
GRID = grids.karras(8)


def mixture(dtype: torch.dtype = F64) -> GaussianMixture:
    def one(sign: float) -> Gaussian:
        return Gaussian(sign * torch.linspace(0.2, 1.0, 12, dtype=dtype), torch.linspace(0.1, 0.6, 12, dtype=dtype))

    return GaussianMixture(torch.tensor([0.4, 0.6], dtype=dtype), [one(1.0), one(-0.5)])


def images(dtype: torch.dtype = F64, count: int = 6) -> Tensor:
    return normal(range(count), (1, 3, 4), purpose="images", dtype=dtype)


def final(sampler, denoiser: Denoiser, **options) -> Tensor:
    *_, last = sampler(denoiser, 80.0 * images(), GRID, label=LABEL, noise=lambda step: images(), **options)
    return last.x


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize(
    "options", [{}, {"interval": (0.3, 3.0)}, {"over_levels": "cosine"}, {"each_class": (3.0, 0.5)}]
)
def test_apg_that_keeps_everything_is_cfg_bit_for_bit(level: Level, dtype: torch.dtype, options) -> None:
    exact, x = mixture(dtype), images(dtype)
    plain = cfg(exact, 2.5, **options)(x, level, LABEL).x0
    assert torch.equal(apg(exact, 2.5, eta=1.0, **options)(x, level, LABEL).x0, plain)
    assert torch.equal(apg(exact, 2.5, eta=1.0, norm=1e9, **options)(x, level, LABEL).x0, plain)


@pytest.mark.parametrize("level", LEVELS)
def test_apg_at_eta_0_moves_only_across_the_conditional_estimate(level: Level) -> None:
    exact, x = mixture(), images()
    found = apg(exact, 6.0, eta=0.0)(x, level, LABEL)
    conditional = exact(x, level, LABEL).x0
    moved = (found.x0 - conditional).flatten(1)
    cosine = (moved * conditional.flatten(1)).sum(1) / (moved.norm(dim=1) * conditional.flatten(1).norm(dim=1))
    assert float(cosine.abs().max()) < 1e-12 and float(moved.norm(dim=1).min()) > 1e-6


def test_apg_is_the_papers_formula() -> None:
    exact, x, w, eta, norm = mixture(), images(), 4.0, 0.3, 0.2
    found = apg(exact, w, eta=eta, norm=norm)(x, LEVELS[0], LABEL).x0
    conditional, null = exact(x, LEVELS[0], LABEL).x0, exact(x, LEVELS[0]).x0
    difference = conditional - null
    lengths = difference.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    assert bool((lengths > norm).any())
    bounded = difference * (norm / lengths).clamp(max=1.0)
    parallel = along(bounded, conditional)
    expected = conditional + (w - 1) * (bounded - parallel + eta * parallel)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", [ddim, heun])
def test_momentum_remembers_a_walk_and_forgets_it_when_the_next_begins(sampler) -> None:
    denoiser = apg(mixture(), 3.0, eta=1.0, momentum=-0.5)
    first = final(sampler, denoiser)
    assert torch.equal(final(sampler, denoiser), first)
    denoiser(images(count=6), Level.of(1.0, 0.01), LABEL)  # a walk that was left half way
    assert torch.equal(final(sampler, denoiser), first)
    assert not torch.allclose(first, final(sampler, cfg(mixture(), 3.0)))


def test_momentum_adds_a_share_of_the_steps_before() -> None:
    exact, x, levels = mixture(), images(), (Level.of(1.0, 2.0), Level.of(1.0, 1.5))
    denoiser = apg(exact, 3.0, eta=1.0, momentum=-0.5)
    differences = [exact(x, level, LABEL).x0 - exact(x, level).x0 for level in levels]
    first, second = (denoiser(x, level, LABEL).x0 for level in levels)
    torch.testing.assert_close(first, exact(x, levels[0], LABEL).x0 + 2 * differences[0])
    torch.testing.assert_close(second, exact(x, levels[1], LABEL).x0 + 2 * (differences[1] - 0.5 * differences[0]))


@pytest.mark.parametrize("level", LEVELS)
def test_rescale_by_nothing_is_what_it_wraps_bit_for_bit(level: Level) -> None:
    for guided in (cfg(mixture(), 3.0), apg(mixture(), 3.0), mixture()):
        assert torch.equal(rescale(guided, 0.0)(images(), level, LABEL).x0, guided(images(), level, LABEL).x0)


@pytest.mark.parametrize("phi", [0.4, 1.0])
def test_rescale_brings_the_contrast_towards_the_models_own(phi: float) -> None:
    exact, x = mixture(), images()
    own = exact(x, LEVELS[0], LABEL).x0.flatten(1).std(1)
    guided = cfg(exact, 5.0)(x, LEVELS[0], LABEL).x0.flatten(1).std(1)
    found = rescale(cfg(exact, 5.0), phi)(x, LEVELS[0], LABEL).x0.flatten(1).std(1)
    torch.testing.assert_close(found, phi * own + (1 - phi) * guided, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", [ddim, euler])
def test_cfgpp_without_guidance_is_the_sampler_bit_for_bit(sampler) -> None:
    unconditional = cfg(mixture(), 0.0)
    assert torch.equal(final(sampler, unconditional, cfgpp=True), final(sampler, unconditional))
    assert torch.equal(final(sampler, mixture(), cfgpp=True), final(sampler, mixture()))


@pytest.mark.parametrize("sampler", [ddim, euler])
@pytest.mark.parametrize("w", [0.3, 1.0])
def test_cfgpp_keeps_the_noise_of_the_unconditional_estimate(sampler, w: float) -> None:
    """One step from t to s is alpha_s x0 + sigma_s n, with n from the estimate without a label."""
    exact, x, t, s = mixture(), images(), Level.of(1.0, 2.0), Level.of(1.0, 0.7)
    (step,) = sampler(cfg(exact, w, both=True), x, Level.stack([t, s]), label=LABEL, cfgpp=True)
    conditional, null = exact(x, t, LABEL).x0, exact(x, t).x0
    expected = torch.lerp(null, conditional, w) + 0.7 * (x - null) / 2.0
    torch.testing.assert_close(step.x, expected, rtol=1e-12, atol=1e-12)


def test_ddim_and_euler_agree_on_cfgpp() -> None:
    guided = cfg(mixture(), 0.6, both=True)
    ones = [final(euler, guided, cfgpp=True, gauge=gauge) for gauge in ("ve", "flow")]
    for one in ones:
        torch.testing.assert_close(one, final(ddim, guided, cfgpp=True), rtol=1e-9, atol=1e-9)


def test_forms_compose_with_interval_and_threshold() -> None:
    """Outside the interval nothing guides; a threshold bounds what apg and rescale leave."""
    exact, x = mixture(), images()
    denoiser = threshold(rescale(apg(exact, 8.0, eta=0.5), 0.7), 0.5)
    assert float(denoiser(x, LEVELS[0], LABEL).x0.abs().max()) == 0.5
    confined = interval(denoiser, exact, 1.0, 2.0)
    assert torch.equal(confined(x, LEVELS[0], LABEL).x0, exact(x, LEVELS[0], LABEL).x0)
    mixed = confined(x, LEVELS[1], LABEL)
    assert mixed.unconditional is not None and mixed.unconditional.shape == x.shape
    own = rescale(apg(exact, 8.0, interval=(1.0, 2.0)))
    assert torch.equal(own(x, LEVELS[0], LABEL).x0, exact(x, LEVELS[0], LABEL).x0)


@pytest.mark.parametrize("options", [{"eta": 1.5}, {"norm": 0.0}, {"momentum": 1.0}])
def test_apg_refuses_what_it_cannot_do(options) -> None:
    with pytest.raises(ValueError, match=r"apg needs eta in \[0, 1\]"):
        apg(mixture(), 2.0, **options)


def recipe(*changes: str):
    base = override(edm_digits(), changes)
    return plan(override(base, ()).__class__(**{**vars(base), "shape": Shape(1, 8, 8, tuple("0123456789"))}))


def test_recipes_name_the_forms_and_captions_say_them() -> None:
    made = recipe("sample.guidance=[apg,rescale]", "sample.guidance.w=2", "sample.guidance.norm=15")
    check(made)
    assert Making.of(made.recipe).guided == ("projected guidance 2 (eta 0, norm 15)", "rescaled 0.7")
    assert Making.of(made.recipe).short.endswith("apg-w2-eta0-norm15-phi0.7")
    check(recipe("sample.guidance=0.6", "sample.sampler=ddim", "sample.sampler.cfgpp=true"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("sample.guidance=rescale",), "nothing guides before it"),
        (("sample.guidance=[cfg,apg]",), "apg guides by the label in the place of cfg"),
        (("sample.guidance=1.5", "sample.sampler=ddim", "sample.sampler.cfgpp=true"), "got guidance 1.5"),
        (("sample.sampler=euler", "sample.sampler.cfgpp=true"), "got no guidance"),
        (("data.labels=false", "sample.guidance=apg", "sample.guidance.w=2"), "class-conditional model"),
        (("sample.sampler=ddim", "sample.sampler.cfgpp=true", "sample.sampler.fresh=true"), "cfgpp"),
    ],
)
def test_bad_input_is_refused_when_the_recipe_is_built(changes: tuple[str, ...], words: str) -> None:
    with pytest.raises((RecipeError, ValueError), match=words):
        check(recipe(*changes))


def test_a_prediction_keeps_both_estimates_through_what_follows() -> None:
    guided = threshold(cfg(mixture(), 2.0))(images(), LEVELS[0], LABEL)
    assert isinstance(guided, Prediction) and guided.conditional is not None and guided.unconditional is not None
