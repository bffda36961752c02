"""MeanFlow: its identity where everything is known, its limits, its derivative, one call, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sfumato import conditioning, draws, grids, weightings
from sfumato.core import target as targets
from sfumato.core.denoiser import Denoiser, Preconditioned, Prediction
from sfumato.core.exact import Gaussian
from sfumato.core.level import Level, like
from sfumato.core.noise import normal
from sfumato.guidance.cfg import cfg
from sfumato.networks import _fused
from sfumato.networks._layers import GroupNorm, attend
from sfumato.networks.dit import dit
from sfumato.networks.unet import unet
from sfumato.objectives._noising import Noising
from sfumato.objectives.denoising import denoising
from sfumato.objectives.meanflow import derivative, meanflow, step
from sfumato.recipes.few_calls import meanflow_digits
from sfumato.runs.check import check
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import RecipeError, Shape
from sfumato.samplers.ddim import ddim

F64 = torch.float64
DATA = Gaussian(torch.tensor([0.3, -0.2], dtype=F64), torch.tensor([1.0, 0.04], dtype=F64))
NETWORKS = {
    "unet": lambda **more: unet(classes=3, size=8, width=16, head_width=16, blocks=1, embedding=32, **more),
    "dit": lambda **more: dit(classes=3, size=8, width=16, depth=2, heads=2, **more),
}


def line(t: Tensor) -> Level:
    return Level(1 - t, t)


def mean_velocity(x: Tensor, level: Level) -> Tensor:
    """The exact u of the Gaussian, from the solution of its ODE; at r = t the velocity itself."""
    assert level.to is not None
    span = (level.sigma - level.to.sigma).reshape(-1, 1)
    now = (x - DATA(x, level).x0) / level.sigma.reshape(-1, 1)
    return torch.where(span == 0, now, (x - DATA.ode(x, level, level.to)) / torch.where(span == 0, 1.0, span))


def test_the_identity_holds_where_the_mean_velocity_is_known() -> None:
    x, t = normal(range(64), (2,), purpose="x", dtype=F64), torch.linspace(0.15, 1.0, 64, dtype=F64)
    r = t * torch.linspace(0.0, 0.95, 64, dtype=F64).flip(0)
    level = line(t).towards(line(r))
    v = (x - DATA(x, level).x0) / t.reshape(-1, 1)
    rate = derivative(mean_velocity, x, level, v)
    error = mean_velocity(x, level) - (v - (t - r).reshape(-1, 1) * rate)
    assert float(error.abs().max()) < 1e-12
    assert float(((t - r).reshape(-1, 1) * rate).abs().max()) > 0.1  # the identity is not trivial here


def network(name: str, **more: bool) -> nn.Module:
    torch.manual_seed(0)
    made = NETWORKS[name](**more)
    torch.manual_seed(1)
    for parameter in made.parameters():
        with torch.no_grad():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return made


def model(made: nn.Module, dtype: torch.dtype = torch.float32) -> Preconditioned:
    return Preconditioned(
        made.to(dtype, memory_format=torch.channels_last),
        targets.flow(),
        c_noise=conditioning.flow_time(),
        two_levels=True,
    )


def batch(dtype: torch.dtype = torch.float32, count: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    x0 = normal(range(count), (1, 8, 8), purpose="x0", dtype=dtype)
    return x0.contiguous(memory_format=torch.channels_last), torch.arange(count) % 3, torch.arange(count)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_derivative_is_that_of_finite_differences(name: str) -> None:
    denoiser, (x, label, _) = model(network(name, two_levels=True), F64), batch(F64)
    t, r, v = torch.linspace(0.4, 0.9, 8, dtype=F64), torch.linspace(0.0, 0.3, 8, dtype=F64), x.flip(0)

    def u(x: Tensor, level: Level) -> Tensor:
        return denoiser.raw(x, level, label)[0]

    with torch.no_grad():
        exact = derivative(u, x, line(t).towards(line(r)), v)
        h = 1e-6  # the fastest frequency is 100: truncation falls as (100 h)^2
        ahead, behind = (u(x + k * v, line(t + k).towards(line(r))) for k in (h, -h))
    assert float(exact.abs().max()) > 1e-3
    torch.testing.assert_close(exact, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_without_steps_it_is_flow_matching_bit_for_bit(name: str, dropout: float) -> None:
    denoiser, (x0, label, positions) = model(network(name, two_levels=True)), batch()
    shared = {"seed": 3, "batch": 8, "label_dropout": dropout}
    mean = meanflow(draws.logit_normal(), weightings.flow(), steps=0.0, power=0.0, **shared)
    plain = denoising(draws.logit_normal(), weightings.flow(), reduce="sum", **shared)
    found = []
    for loss in (mean, plain):
        each = loss(denoiser, x0, label, positions).each
        found.append((each, torch.autograd.grad(each.sum(), [*denoiser.network.parameters()], allow_unused=True)))
    (one, slopes), (other, others) = found
    assert torch.equal(one, other)
    for (key, _), a, b in zip(denoiser.network.named_parameters(), slopes, others):
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b)), key


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_told_of_steps_starts_as_one_that_is_not(name: str) -> None:
    torch.manual_seed(0)
    plain = NETWORKS[name]()
    torch.manual_seed(0)
    told = NETWORKS[name](two_levels=True)
    state = told.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in plain.state_dict().items())
    assert {key.split(".")[0] for key in state.keys() - plain.state_dict().keys()} == {"span"}
    with torch.no_grad():
        for network in (plain, told):  # an output that is not zero
            for key, value in network.named_parameters():
                if not key.startswith("span"):
                    value.add_(0.01)
    x, label, _ = batch()
    expected = plain(x, torch.full((8,), 0.7), label)
    assert torch.equal(told(x, torch.full((8,), 0.7), label, torch.full((8,), 0.2)), expected)
    assert torch.equal(told(x, torch.full((8,), 0.7), label), expected) and float(expected.detach().abs().max()) > 0


def test_the_loss_is_0_where_the_network_answers_the_mean_velocity_of_one_image() -> None:
    """For a single image v = n - x0 is constant along the walk, so u = (x - x0) / t for every r."""
    x0, _, positions = batch(F64, 4)
    x0 = x0[:1].expand(4, -1, -1, -1)

    class Known(nn.Module):
        def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None, to: Tensor | None = None) -> Tensor:
            return (x - x0[: len(x)]) / t.reshape(-1, 1, 1, 1)

    denoiser = Preconditioned(Known(), targets.flow(), c_noise=conditioning.flow_time(), two_levels=True)
    loss = meanflow(draws.logit_normal(), weightings.flow(), seed=0, batch=4, steps=1.0, power=0.0)
    assert float(loss(denoiser, x0, None, positions).each.max()) < 1e-20


def test_the_target_is_the_identity_with_a_stopped_gradient() -> None:
    denoiser, (x0, label, positions) = model(network("unet", two_levels=True), F64), batch(F64)
    options = {"seed": 0, "batch": 8, "label_dropout": 0.0}
    found = meanflow(draws.logit_normal(), weightings.flow(), steps=1.0, power=0.0, **options)
    level = step(Noising(draws.logit_normal(), 0, 8), positions, 1.0)
    assert level.to is not None and bool((level.to.sigma < level.sigma).all())
    n = normal(positions, x0.shape[1:], seed=0, purpose="noise", dtype=F64)
    x, v = level.noisy(x0, n), n - x0
    u = denoiser.raw(x, level, label)[0]
    rate = derivative(lambda x, level: denoiser.raw(x, level, label)[0], x, level, v).detach()
    goal = v - like(level.sigma - level.to.sigma, x) * rate
    torch.testing.assert_close(found(denoiser, x0, label, positions).each, (u - goal).square().flatten(1).sum(1))
    weighted = meanflow(draws.logit_normal(), weightings.flow(), steps=1.0, power=1.0, c=0.5, **options)
    each, error = weighted(denoiser, x0, label, positions).each, (u - goal).square().flatten(1).sum(1)
    torch.testing.assert_close(each, error / (error + 0.5))


def test_guidance_is_trained_in_with_its_effective_weight() -> None:
    """The fixed point of v' = w v + mix u + (1 - w - mix) u0 is guidance of weight w / (1 - mix)."""
    known, null, (x0, label, positions) = 3.0, -1.0, batch(F64)

    class Constant(nn.Module):
        def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None, to: Tensor | None = None) -> Tensor:
            rows = torch.full((len(x),), null, dtype=x.dtype) if label is None else torch.where(label < 0, null, known)
            return rows.to(x).reshape(-1, 1, 1, 1).expand_as(x)

    denoiser = Preconditioned(Constant(), targets.flow(), c_noise=conditioning.flow_time(), two_levels=True)
    w, mix = 1.2, 0.4
    options = {"seed": 0, "batch": 8, "label_dropout": 0.3, "power": 0.0, "steps": 0.0}
    found = meanflow(draws.logit_normal(), weightings.flow(), w=w, mix=mix, **options)
    told = Noising(draws.logit_normal(), 0, 8, 0.3).label(label, positions)
    assert told is not None and bool((told < 0).any()) and bool((told >= 0).any())
    n = normal(positions, x0.shape[1:], seed=0, purpose="noise", dtype=F64)
    v = n - x0
    kept = (told >= 0).reshape(-1, 1, 1, 1)
    goal = torch.where(kept, w * v + mix * known + (1 - w - mix) * null, v)
    answer = torch.where(kept, known, null)
    torch.testing.assert_close(
        found(denoiser, x0, label, positions).each, (answer - goal).square().flatten(1).sum(1), rtol=1e-10, atol=1e-10
    )


class Exact:
    """The Gaussian as MeanFlow would know it: D = x - t u of the step that the level says."""

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        rows = Level(level.alpha.expand(len(x)), level.sigma.expand(len(x)))
        to = rows if level.to is None else Level(level.to.alpha.expand(len(x)), level.to.sigma.expand(len(x)))
        return Prediction(x - level.sigma * mean_velocity(x, rows.towards(to)))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_ddim_with_the_mean_velocity_lands_on_the_walk_in_any_number_of_steps(steps: int) -> None:
    x, grid = normal(range(16), (2,), purpose="x", dtype=F64), grids.flow(steps)
    for state in ddim(Exact(), x, grid):
        torch.testing.assert_close(state.x, DATA.ode(x, grid[0], state.level), rtol=1e-10, atol=1e-10)


def test_guidance_outside_hears_of_the_step_too() -> None:
    seen: list[Level] = []

    def watched(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        seen.append(level)
        return Prediction(0 * x)

    guided: Denoiser = cfg(watched, 2.0)
    list(ddim(guided, torch.zeros(2, 2), grids.flow(2), label=torch.tensor([0, 1])))
    ends = [float(level.to.sigma) for level in seen if level.to is not None]
    assert ends == [0.5, 0.0]
    per_image = line(torch.tensor([0.5, 0.9], dtype=F64)).towards(line(torch.tensor([0.1, 0.2], dtype=F64)))
    guided(torch.zeros(2, 2), per_image, torch.tensor([0, 1]))
    assert seen[-1].to is not None and seen[-1].to.sigma.tolist() == [0.1, 0.2, 0.1, 0.2]


def test_the_fused_normalisation_steps_aside_under_forward_mode() -> None:
    layer, x = GroupNorm(8, 2), torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    v = torch.randn_like(x)

    def norm(x: Tensor) -> Tensor:
        return layer(x, silu=True)

    with torch.no_grad():
        value, slope = torch.func.jvp(norm, (x,), (v,))
        torch.testing.assert_close(value, norm(x), rtol=1e-4, atol=1e-5)
        ahead, behind = (norm((x.double() + h * v.double()).float()) for h in (1e-2, -1e-2))
    torch.testing.assert_close(slope, (ahead - behind) / 2e-2, rtol=1e-2, atol=1e-2)
    assert not _fused.differentiated(x)
    q = torch.randn(1, 2, 300, 4)
    torch.testing.assert_close(torch.func.jvp(lambda q: attend(q, q, q), (q,), (q,))[0], attend(q, q, q))


def recipe(*changes: str):
    return plan(replace(override(meanflow_digits(), changes), shape=Shape(1, 8, 8, tuple("0123456789"))))


def test_the_recipe_is_built() -> None:
    check(recipe())
    check(recipe("sample.grid.steps=4", "sample.guidance=1.5", "objective.w=1.2", "objective.mix=0.4"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("sample.sampler=heun", "sample.sampler.gauge=flow"), "does not tell the network where its step ends"),
        (("network.two_levels=false",), "Set network.two_levels=true"),
        (("target=eps",), "Set target=flow"),
        (("schedule=linear", "c_noise=index", "draw=uniform", "sample.grid=full"), "Set c_noise=flow-time"),
        (("objective.steps=1.5",), r"steps.* in \[0, 1\]"),
        (("objective.mix=1",), r"mix.* in \[0, 1\)"),
    ],
)
def test_bad_input_is_refused_when_the_recipe_is_built(changes: tuple[str, ...], words: str) -> None:
    with pytest.raises((RecipeError, ValueError), match=words):
        check(recipe(*changes))


def test_a_step_to_more_noise_is_refused() -> None:
    x, t = torch.zeros(1, 2, dtype=F64), torch.tensor([0.5], dtype=F64)
    with pytest.raises(ValueError, match="r > t"):
        derivative(mean_velocity, x, line(t).towards(line(t + 0.1)), x)
    with pytest.raises(ValueError, match=r"Level\.to"):
        derivative(mean_velocity, x, line(t), x)
