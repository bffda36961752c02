"""The contract of every sampler. The folder is collected, so a new file is tested by existing."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato import grids, schedules
from sfumato.core.denoiser import Denoiser, Prediction, State
from sfumato.core.exact import Gaussian
from sfumato.core.find import entries
from sfumato.core.level import Level
from sfumato.core.noise import SamplingNoise

F64 = torch.float64
SAMPLERS = entries("sampler")
ORDERS = {name: importlib.import_module(entry.__module__).ORDER for name, entry in SAMPLERS.items()}
DATA = Gaussian(torch.tensor([0.3, -0.2, 0.1], dtype=F64), torch.tensor([1.0, 0.25, 0.04], dtype=F64))


class Asked:
    """Noise that remembers the steps it was asked for."""

    def __init__(self, inner: Callable[[int], Tensor]) -> None:
        self.inner = inner
        self.steps: list[int] = []

    def __call__(self, step: int) -> Tensor:
        self.steps.append(step)
        return self.inner(step)


def walk(
    name: str, grid: Level, seeds: list[int], denoiser: Denoiser = DATA, dtype: torch.dtype = F64, label: object = None
) -> tuple[list[State], list[int]]:
    """Run a sampler with its default options; return its states and the steps at which it asked for noise."""
    noise = SamplingNoise(seeds, (3,), dtype=dtype)
    asked = Asked(noise)
    x = noise.start() * float(grid.sigma[0])
    return list(SAMPLERS[name](denoiser, x, grid, noise=asked, label=label)), asked.steps


@pytest.mark.parametrize("name", SAMPLERS)
def test_signature(name: str) -> None:
    """(denoiser, x, grid, *, noise=None, label=None, options with defaults): a generator that declares ORDER."""
    entry = SAMPLERS[name]
    parameters = list(inspect.signature(entry).parameters.values())
    assert [p.name for p in parameters[:5]] == ["denoiser", "x", "grid", "noise", "label"]
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters[:3])
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[3:])
    assert parameters[3].default is None and parameters[4].default is None
    assert all(p.default is not inspect.Parameter.empty for p in parameters[5:])
    assert inspect.isgeneratorfunction(entry)
    assert ORDERS[name] is None or ORDERS[name] >= 1
    doc = inspect.getdoc(entry) or ""
    missing = [p.name for p in parameters if f"{p.name}:" not in doc]
    assert not missing, f"undocumented: {missing}"


@pytest.mark.parametrize(
    "grid",
    [grids.karras(7), grids.karras(1), grids.respaced(schedules.linear().levels, 9), grids.flow(6)],
    ids=["karras", "one-step", "respaced", "from-pure-noise"],
)
@pytest.mark.parametrize("name", SAMPLERS)
def test_one_finite_state_per_step_at_the_grids_levels(name: str, grid: Level) -> None:
    if name == "heun" and float(grid.alpha[0]) == 0:
        pytest.skip("heun's default gauge needs alpha > 0; tests/laws covers the others")
    states, _ = walk(name, grid, [0, 1])
    assert len(states) == len(grid) - 1
    for state, level in zip(states, grid[1:]):
        assert torch.equal(state.level.alpha, level.alpha) and torch.equal(state.level.sigma, level.sigma)
        assert state.x.shape == state.x0.shape == (2, 3)
        assert bool(state.x.isfinite().all()) and bool(state.x0.isfinite().all())


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    """Image i is identical for any batch size and order (elementwise denoiser: bitwise but for summation order)."""
    grid = grids.karras(6)
    together = walk(name, grid, [4, 9, 2])[0][-1].x
    for row, seed in enumerate([4, 9, 2]):
        torch.testing.assert_close(walk(name, grid, [seed])[0][-1].x[0], together[row], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", SAMPLERS)
def test_same_seed_same_sample_whatever_ran_before(name: str) -> None:
    grid = grids.karras(6)
    first = walk(name, grid, [3])[0][-1].x
    before = torch.random.get_rng_state()
    walk(name, grids.karras(5), [8])
    torch.manual_seed(1)
    assert torch.equal(walk(name, grid, [3])[0][-1].x, first)
    torch.random.set_rng_state(before)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_global_generator_is_left_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    walk(name, grids.karras(5), [8])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", SAMPLERS)
def test_noise_is_asked_for_once_per_step_and_never_at_the_end(name: str) -> None:
    """Stochastic samplers use each step's noise once; the step to the clean level adds none.

    Numbers beyond the grid's are those of corrections at a level, which are no steps.
    """
    _, steps = walk(name, grids.karras(6), [0])
    assert [step for step in steps if step <= 6] in ([], [0, 1, 2, 3, 4])
    assert len(set(steps)) == len(steps)


# options that make a sampler add noise, or add none, where its default does the other
STOCHASTIC: dict[str, dict[str, Any]] = {
    "ddim": {"eta": 0.5},
    "euler": {"churn": 10.0},
    "heun": {"churn": 10.0},
    "singlestep": {"eta": 0.5},
}
DETERMINISTIC: dict[str, dict[str, Any]] = {"dpmpp-sde": {"eta": 0.0}}


@pytest.mark.parametrize("name", SAMPLERS)
def test_noise_may_be_left_out_unless_a_step_adds_some(name: str) -> None:
    """Without noise, a walk that asks for none is the walk with noise; one that asks raises with the remedy."""
    grid, x = grids.karras(6), SamplingNoise([0, 1], (3,), dtype=F64).start() * 80
    noisy = {"ancestral", "predictor-corrector", *DETERMINISTIC}  # by default
    settings = [({}, name in noisy)]
    settings += [(STOCHASTIC[name], True)] if name in STOCHASTIC else []
    settings += [(DETERMINISTIC[name], False)] if name in DETERMINISTIC else []
    for options, adds in settings:
        asked = Asked(SamplingNoise([0, 1], (3,), dtype=F64))
        *_, last = SAMPLERS[name](DATA, x, grid, noise=asked, **options)
        assert bool(asked.steps) == adds
        if adds:
            with pytest.raises(ValueError, match=r"adds fresh noise.*noise is None\. Give noise=SamplingNoise"):
                list(SAMPLERS[name](DATA, x, grid, **options))
        else:
            *_, alone = SAMPLERS[name](DATA, x, grid, **options)
            assert torch.equal(alone.x, last.x)


def test_every_option_that_adds_noise_counts() -> None:
    """eta, churn and the like are options of the samplers above, and no other sampler has one."""
    adding = {name for name, entry in SAMPLERS.items() if {"eta", "churn"} & set(inspect.signature(entry).parameters)}
    assert adding == set(STOCHASTIC) | set(DETERMINISTIC)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_walk_ends_at_an_estimate_of_x0(name: str) -> None:
    """At (1, 0) no noise is left: the last state is the last estimate, up to the noise of the step before."""
    grid = grids.karras(6, sigma_min=0.002)
    last = walk(name, grid, [0, 1])[0][-1]
    torch.testing.assert_close(last.x, last.x0, rtol=0, atol=0.002)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_point_is_found_exactly(name: str) -> None:
    """If the data is one point, every sampler lands on it, from any grid and noise."""
    point = torch.tensor([0.5, -1.0, 2.0], dtype=F64)

    def denoiser(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        return Prediction(point.expand_as(x))

    for steps in (1, 2, 7):
        torch.testing.assert_close(walk(name, grids.karras(steps), [0], denoiser)[0][-1].x[0], point)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_dtype_of_x_is_kept_and_x_is_not_changed(name: str) -> None:
    grid = grids.karras(5)
    noise = SamplingNoise([0, 1], (3,), dtype=torch.float32)
    x = noise.start() * 80
    kept = x.clone()
    states = list(SAMPLERS[name](DATA, x, grid, noise=noise))
    assert all(state.x.dtype == torch.float32 for state in states)
    assert torch.equal(x, kept)
    exact = walk(name, grid, [0, 1], dtype=F64)[0][-1].x
    torch.testing.assert_close(states[-1].x.double(), exact, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_label_reaches_every_call(name: str) -> None:
    label = torch.tensor([0, -1])
    seen: list[Tensor | None] = []

    def denoiser(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        seen.append(label)
        return DATA(x, level)

    walk(name, grids.karras(5), [0, 1], denoiser, label=label)
    assert seen and all(given is not None for given in seen)
    rows = torch.cat([given for given in seen if given is not None])
    assert set(rows.tolist()) == {0, -1}


def falling(steps: int) -> Level:
    """N steps from nsr 80 to 0.02 on the circle: no step to the clean level, which is first order by nature."""
    levels = grids.karras(steps + 1, sigma_min=0.02)[:-1]
    return levels.scaled(1 / torch.hypot(levels.alpha, levels.sigma))


def moments_after(name: str, grid: Level) -> tuple[Tensor, Tensor]:
    """Return the exact mean and variance of a sampler's output on Gaussian data, without sampling.

    The denoiser is affine, so the output is affine in x and in each step's noise: a batch of unit vectors reads off
    all coefficients at once. Row 0 is the offset, row 1 the response to x, row 2 + i to the noise of step i.
    """
    count = len(grid) - 1
    x = torch.zeros(count + 2, 3, dtype=F64)
    x[1] = 1

    def noise(step: int) -> Tensor:
        z = torch.zeros(count + 2, 3, dtype=F64)
        z[2 + step] = 1
        return z

    *_, last = SAMPLERS[name](DATA, x, grid, noise=noise)
    offset, gain = last.x[0], last.x[1:] - last.x[0]
    mean, variance = DATA.mean * grid.alpha[0], grid.alpha[0] ** 2 * DATA.variances + grid.sigma[0] ** 2
    return offset + gain[0] * mean, gain[0] ** 2 * variance + (gain[1:] ** 2).sum(0)


def error(name: str, steps: int) -> float:
    """Return the error of the sampled variance: exact sampling keeps alpha^2 s^2 + sigma^2 at every level."""
    grid = falling(steps)
    mean, variance = moments_after(name, grid)
    end = grid[-1]
    torch.testing.assert_close(mean, end.alpha * DATA.mean, rtol=0, atol=0.05)
    return float((variance / (end.alpha**2 * DATA.variances + end.sigma**2) - 1).abs().max())


@pytest.mark.parametrize("name", [name for name, order in ORDERS.items() if order is not None])
def test_measured_order_is_the_declared_one(name: str) -> None:
    """Halving the steps of the grid divides the error of the sampled Gaussian's variance by 2^ORDER.

    Deterministic and stochastic samplers alike: this is the order of the distribution (weak order).
    """
    coarse, fine = error(name, 96), error(name, 192)
    assert math.log2(coarse / fine) == pytest.approx(ORDERS[name], abs=0.3)
