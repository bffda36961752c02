"""Restoration against truth: a Gaussian's closed-form posterior, a mixture's by importance weights, and the ends.

With x0 ~ N(m, S) and y = A x0 + s z the posterior is Gaussian, mean m + K (y - A m) and covariance S - K A S with
K = S A^T (A S A^T + s^2 I)^-1. A method is then an affine map of x, so the mean and the covariance of what a sampler
makes are found without sampling: one step maps a mean and a basis, its noise adds a variance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato import grids
from sfumato.core.denoiser import Counted, Denoiser, Prediction, Sampler
from sfumato.core.exact import Gaussian, GaussianMixture
from sfumato.core.find import entries, find
from sfumato.core.images import NonFiniteError
from sfumato.core.level import Level, like
from sfumato.core.noise import SamplingNoise, normal
from sfumato.core.task import Task, TaskError
from sfumato.restoration import method_of, resampled
from sfumato.samplers.ancestral import ancestral
from sfumato.samplers.ddim import ddim
from sfumato.samplers.heun import heun

F64 = torch.float64
SHAPE = (1, 2, 3)
HIDE = torch.tensor([[False, True, False], [True, False, True]])
METHODS = sorted(set(entries("method")) - {"told"})  # which leaves what a model was trained on to the model
TASKS: dict[str, Task] = {
    "inpaint": find("task", "inpaint")(SHAPE, mask=HIDE),
    "inpaint, s = 0.3": find("task", "inpaint")(SHAPE, mask=HIDE, noise=0.3),
    "deblur, s = 0.1": find("task", "deblur")(SHAPE, noise=0.1),
}
STEPS = (20, 100, 400)


def gaussian() -> tuple[Gaussian, Tensor]:
    """A Gaussian of six dimensions in no axis' direction, and its covariance."""
    q, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=F64))
    variances = torch.tensor([1.0, 0.6, 0.3, 0.15, 0.08, 0.04], dtype=F64)
    mean = 0.3 * normal([5], (6,), purpose="mean", dtype=F64)[0]
    return Gaussian(mean, variances, q), (q * variances) @ q.T


PRIOR, COVARIANCE = gaussian()
SD = float(COVARIANCE.diagonal().mean().sqrt())


def posterior(task: Task) -> tuple[Tensor, Tensor, Tensor]:
    """A measurement of one draw from the prior, and the posterior's mean and covariance."""
    matrix = task.apply(torch.eye(6, dtype=F64).reshape(6, *SHAPE)).flatten(1).T
    z = normal([7], (6,), purpose="draw", dtype=F64)
    x0 = PRIOR.mean + (z * PRIOR.variances.sqrt()) @ PRIOR.basis.T
    y = task.measure(x0.reshape(1, *SHAPE), normal([8], task.measured, purpose="measurement", dtype=F64))
    width = matrix @ COVARIANCE @ matrix.T + task.noise**2 * torch.eye(len(matrix), dtype=F64)
    gain = COVARIANCE @ matrix.T @ torch.linalg.inv(width)
    return y, PRIOR.mean + gain @ (y.flatten() - matrix @ PRIOR.mean), COVARIANCE - gain @ matrix @ COVARIANCE


def bound(name: str, task: Task, y: Tensor, **options: Any) -> Denoiser:
    """The exact denoiser under a method; the solver of moment matching runs to its end, undamped."""
    full = {"iterations": 6, "damping": 0.0} if name == "moment" and not options else options
    return method_of(name, **full)(PRIOR, task, y.expand(7, *task.measured), SD)


def _constant(x: Tensor, value: float, step: int) -> Tensor:
    return torch.full_like(x, value)


def moments(denoiser: Denoiser, sampler: Sampler, grid: Level) -> tuple[Tensor, Tensor]:
    """Mean and covariance of what a one-step sampler makes of an affine denoiser, exactly."""
    mean, covariance = torch.zeros(6, dtype=F64), float(grid[0].sigma) ** 2 * torch.eye(6, dtype=F64)
    around = torch.cat((torch.zeros(1, 6, dtype=F64), torch.eye(6, dtype=F64)))
    for i in range(len(grid) - 1):
        x = (mean + around).reshape(-1, *SHAPE)
        ends = [
            deque(sampler(denoiser, x, grid[i : i + 2], noise=partial(_constant, x, value)), maxlen=1)[0].x.flatten(1)
            for value in (0.0, 1.0)
        ]
        slope, std = (ends[0][1:] - ends[0][0]).T, (ends[1][0] - ends[0][0])[0]
        mean = ends[0][0]
        covariance = slope @ covariance @ slope.T + std**2 * torch.eye(6, dtype=F64)
    return mean, covariance


def errors(name: str, task: Task, sampler: Sampler, steps: int, **options: Any) -> tuple[float, float]:
    """Error of the mean in standard deviations of the posterior, relative error of the covariance."""
    y, mean, covariance = posterior(task)
    with torch.no_grad():
        m, c = moments(bound(name, task, y, **options), sampler, grids.karras(steps))
    return float((m - mean).norm() / covariance.trace().sqrt()), float((c - covariance).norm() / covariance.norm())


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", METHODS)
def test_a_method_against_the_posterior_of_a_gaussian(
    name: str, task: str, record_property: Callable[[str, object], None]
) -> None:
    """Moment matching approaches mean and covariance with the steps; the others keep a bias, which the table shows."""
    found = [errors(name, TASKS[task], ancestral, steps) for steps in STEPS]
    cells = {f"{steps} steps": f"{mean:.3f} / {covariance:.3f}" for steps, (mean, covariance) in zip(STEPS, found)}
    straight = errors(name, TASKS[task], heun, 100)
    row = {"task": task, "method": name, **cells, "Heun, 100": f"{straight[0]:.3f} / {straight[1]:.3f}"}
    record_property("restoration", row)
    mean, covariance = found[-1]
    if name == "moment":
        assert mean < 0.001 and covariance < 0.05 and covariance < found[1][1] < found[0][1]
        assert straight[1] < 0.02
    else:  # it has a bias, and more steps do not remove it
        assert mean > 0.05 and found[1][0] < 2 * mean


def test_moment_matching_approaches_the_posterior_and_ddnm_does_not() -> None:
    """The same at few steps: the covariance's error falls with the steps, the mean's of DDNM stays."""
    task = TASKS["inpaint"]
    coarse, fine = (errors("moment", task, ancestral, steps) for steps in (10, 60))
    assert fine[0] < 0.001 and fine[1] < 0.2 and fine[1] < 0.4 * coarse[1]
    assert errors("ddnm", task, ancestral, 60)[0] > 0.2


def test_damping_and_few_iterations_cost_little_and_much() -> None:
    """The default damping moves the mean by a fiftieth of a deviation; one iteration of the solver is not enough."""
    task = TASKS["inpaint"]
    damped = errors("moment", task, ancestral, 60, iterations=3, damping=0.01)
    assert damped[0] < 0.02
    assert errors("moment", task, ancestral, 60, iterations=1)[0] > 0.1


def test_dps_is_pigdm_where_rows_are_orthogonal() -> None:
    """A A^T = q I: the width that DPS measures is PiGDM's; for a blur it is another."""
    x = normal(range(7), SHAPE, purpose="x", dtype=F64)
    for task, same in ((TASKS["inpaint"], True), (TASKS["inpaint, s = 0.3"], True), (TASKS["deblur, s = 0.1"], False)):
        y, _, _ = posterior(task)
        a, b = (bound(name, task, y)(x, Level.of(1.0, 0.7)).x0 for name in ("dps", "pigdm"))
        assert torch.allclose(a, b, atol=1e-9) == same


def test_moment_matching_is_the_exact_posterior_mean_at_every_level() -> None:
    """E[x0 | x, y] of a Gaussian, from the joint covariance; on a grid that starts from pure noise x says nothing."""
    task = TASKS["inpaint, s = 0.3"]
    y, _, _ = posterior(task)
    matrix = task.apply(torch.eye(6, dtype=F64).reshape(6, *SHAPE)).flatten(1).T
    x = normal(range(7), SHAPE, purpose="x", dtype=F64)
    for level in (Level.of(1.0, 5.0), Level.of(0.6, 0.8), Level.of(1.0, 0.01)):
        alpha, sigma = float(level.alpha), float(level.sigma)
        seen = torch.cat((alpha * torch.eye(6, dtype=F64), matrix))
        noise = torch.cat((torch.full((6,), sigma**2), torch.full((3,), 0.09))).to(F64).diag()
        gain = COVARIANCE @ seen.T @ torch.linalg.inv(seen @ COVARIANCE @ seen.T + noise)
        both = torch.cat((x.flatten(1), y.expand(7, -1)), 1)
        truth = PRIOR.mean + (both - seen @ PRIOR.mean) @ gain.T
        assert torch.allclose(bound("moment", task, y)(x, level).x0.flatten(1), truth, atol=1e-8)
    pure = Level.of(0.0, 1.0)
    assert torch.allclose(bound("moment", task, y)(x, pure).x0, PRIOR(x, pure).x0)


def off_the_mixture(name: str, steps: int) -> tuple[float, float]:
    """Errors of 4,000 samples against 400,000 weighted draws of a mixture, one coordinate of three seen with noise."""
    means = torch.tensor([[0.4, 0.5, -0.3], [-0.35, -0.5, 0.4]], dtype=F64)
    parts = [Gaussian(m, torch.tensor([0.1, 0.05, 0.08], dtype=F64)) for m in means]
    mixture, shape = GaussianMixture(torch.tensor([0.4, 0.6], dtype=F64), parts), (1, 1, 3)
    task = find("task", "inpaint")(shape, mask=torch.tensor([[False, True, True]]), noise=0.4)
    y, draws, count = torch.tensor([[0.4]], dtype=F64), 400_000, 4_000
    which = (torch.arange(draws) % 10 >= 4).long()
    x0 = means[which] + normal(range(draws), (3,), purpose="draws", dtype=F64) * parts[0].variances.sqrt()
    weights = (-0.5 * ((x0[:, :1] - y) / 0.4) ** 2).flatten().softmax(0)
    mean = weights @ x0
    covariance = (x0 - mean).T @ (weights[:, None] * (x0 - mean))
    denoiser = method_of(name)(mixture, task, y.expand(count, 1), 0.5)
    noise, grid = SamplingNoise(range(count), shape, dtype=F64), grids.karras(steps)
    start = like(grid[0].sigma, y) * noise.start()
    with torch.no_grad():
        x = deque(ancestral(denoiser, start, grid, noise=noise), maxlen=1)[0].x.flatten(1)
    error = float((x.mean(0) - mean).norm() / covariance.trace().sqrt())
    return error, float((x.T.cov() - covariance).norm() / covariance.norm())


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_against_a_mixture_by_importance_weights(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """Of two modes no method is exact; the gradients halve the bias of the projections."""
    found = {steps: off_the_mixture(name, steps) for steps in (20, 100)}
    cells = {f"{steps} steps": f"{mean:.3f} / {covariance:.3f}" for steps, (mean, covariance) in found.items()}
    record_property("restoration", {"task": "mixture, s = 0.4", "method": name, **cells})
    if name in ("ddnm", "replacement"):
        assert found[100][0] > 0.1
    else:
        assert found[100][0] < 0.1 and found[100][1] < 0.2


def walk(denoiser: Denoiser, sampler: Sampler = ancestral, steps: int = 12) -> Tensor:
    noise, grid = SamplingNoise(range(7), SHAPE, dtype=F64), grids.karras(steps)
    start = like(grid[0].sigma, torch.zeros((), dtype=F64)) * noise.start()
    with torch.no_grad():
        return deque(sampler(denoiser, start, grid, noise=noise), maxlen=1)[0].x


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("sampler", [ancestral, heun], ids=["ancestral", "heun"])
def test_a_mask_over_everything_is_plain_sampling(name: str, sampler: Sampler) -> None:
    """If nothing is seen, a method is the denoiser itself, and the walk is the same to the last bit."""
    task = find("task", "inpaint")(SHAPE, mask=torch.ones(2, 3) > 0)
    restored = method_of(name)(PRIOR, task, torch.zeros(7, 0, dtype=F64), SD)
    assert torch.equal(walk(restored, sampler), walk(PRIOR, sampler))


@pytest.mark.parametrize("name", ["ddnm", "replacement"])
@pytest.mark.parametrize("sampler", [ancestral, ddim], ids=["ancestral", "ddim"])
def test_a_mask_over_nothing_returns_the_picture(name: str, sampler: Sampler) -> None:
    """If all is seen without noise, the projections return the picture to the last bit."""
    task = find("task", "inpaint")(SHAPE, mask=torch.zeros(2, 3) > 0)
    x0 = normal(range(7), SHAPE, purpose="picture", dtype=F64)
    assert torch.equal(walk(method_of(name)(PRIOR, task, task.apply(x0), SD), sampler), x0)


def test_replacement_is_ddnm_for_a_mask_without_noise() -> None:
    """One walk, bit for bit; with noise one is cut off where the other fades."""
    y, _, _ = posterior(TASKS["inpaint"])
    same = [walk(bound(name, TASKS["inpaint"], y)) for name in ("ddnm", "replacement")]
    assert torch.equal(*same)
    y, _, _ = posterior(TASKS["inpaint, s = 0.3"])
    assert not torch.equal(*(walk(bound(name, TASKS["inpaint, s = 0.3"], y)) for name in ("ddnm", "replacement")))


def test_resampling_brings_replacement_nearer_to_the_posterior() -> None:
    """RePaint: going back up lets the hidden part agree with the seen one. Once is the sampler itself, bit for bit."""
    task = TASKS["inpaint"]
    y, mean, _ = posterior(task)
    denoiser = bound("replacement", task, y)
    assert torch.equal(walk(denoiser, resampled(ancestral, 1, 5)), walk(denoiser))
    many = method_of("replacement")(PRIOR, task, y.expand(2000, 3), SD)
    noise, grid = SamplingNoise(range(2000), SHAPE, dtype=F64), grids.karras(20)
    start = like(grid[0].sigma, y) * noise.start()
    off = []
    for times in (1, 5):
        with torch.no_grad():
            x = deque(resampled(ancestral, times)(many, start, grid, noise=noise), maxlen=1)[0].x
        off.append(float((x.flatten(1).mean(0) - mean).norm()))
    assert off[1] < 0.7 * off[0]


@pytest.mark.parametrize(
    ("name", "products"), [("ddnm", 0), ("replacement", 0), ("dps", 1), ("pigdm", 1), ("moment", 3)]
)
def test_what_a_call_costs(name: str, products: int) -> None:
    """One call of the denoiser a call of the method, and the vector-Jacobian products that it says."""
    counted, task = Counted(PRIOR), TASKS["inpaint, s = 0.3"]
    y, _, _ = posterior(task)
    denoiser = method_of(name)(counted, task, y.expand(7, 3), SD)
    walk(denoiser, steps=5)
    assert (counted.nfe, counted.vjps) == (5, 5 * products)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "dps"])
def test_a_nonlinear_task_is_refused_before_any_call(name: str) -> None:
    counted, task = Counted(PRIOR), find("task", "quantise")(SHAPE)
    with pytest.raises(TaskError, match=f"method {name} needs a linear task, and quantise is not one. Use method dps"):
        method_of(name)(counted, task, torch.zeros(7, *SHAPE, dtype=F64), SD)
    assert counted.nfe == 0


def test_dps_follows_a_nonlinear_task() -> None:
    """Pixels rounded to four levels: restored samples round to the measurement far more often than plain ones."""
    task = find("task", "quantise")(SHAPE)
    x0 = walk(PRIOR)
    y = task.apply(x0)
    agree = [
        float((task.apply(x) == y).double().mean()) for x in (walk(method_of("dps")(PRIOR, task, y, SD)), x0.flip(0))
    ]
    assert agree[0] > 0.7 > agree[1]


def test_an_answer_that_is_no_number_is_said() -> None:
    """A denoiser whose slope is infinite: the method says which, where, and what to do."""

    def broken(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        return Prediction(PRIOR(x, level).x0 + (x - x).sqrt())  # the slope of a square root at 0

    task = TASKS["inpaint"]
    y, _, _ = posterior(task)
    with pytest.raises(NonFiniteError, match=r"method pigdm gave NaN or infinity for 7 of 7 .*damping"):
        walk(method_of("pigdm")(broken, task, y.expand(7, 3), SD))


@pytest.mark.parametrize("iterations", [1, 2, 3, 6])
@pytest.mark.parametrize("wrong", [0.1, 0.3, 1.0])
def test_a_jacobian_without_symmetry_does_not_diverge(wrong: float, iterations: int) -> None:
    """A denoiser like a network's, with a crooked slope: what is seen fits, the rest is bounded."""
    slope = wrong * normal(range(6), (6,), purpose="slope", dtype=F64)

    def crooked(x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        size, share = float(torch.hypot(level.alpha, level.sigma)), float(level.nsr / (1 + level.nsr))
        return Prediction(PRIOR(x, level).x0 + share * ((x / size).flatten(1).tanh() @ slope.T).reshape(x.shape))

    task = TASKS["inpaint"]
    y, _, _ = posterior(task)
    x = walk(method_of("moment", iterations=iterations)(crooked, task, y.expand(7, 3), SD), steps=30)
    assert float(x.abs().max()) < 5 + float(walk(crooked, steps=30).abs().max())
    assert float((task.apply(x) - y).abs().max()) < 0.01


def test_options_out_of_range() -> None:
    task, y = TASKS["inpaint"], torch.zeros(7, 3, dtype=F64)
    for name, options in (("moment", {"iterations": 0}), ("moment", {"damping": -1.0}), ("dps", {"weight": 0.0})):
        with pytest.raises(TaskError, match=next(iter(options))):
            method_of(name, **options)(PRIOR, task, y, SD)
    with pytest.raises(ValueError, match="times >= 1"):
        resampled(ancestral, 0)
