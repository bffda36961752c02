"""EDM against numbers made by NVlabs/edm: grids, both samplers, losses and their gradients, preconditioning."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfumato import conditioning, draws, grids, schedules, weightings
from sfumato.core import gauge as gauges
from sfumato.core import target as targets
from sfumato.core.denoiser import Preconditioned, Prediction, Target, skip_and_out, unit_circle, unit_variance
from sfumato.core.gauge import Gauge
from sfumato.core.level import Level, like
from sfumato.samplers.euler import euler
from sfumato.samplers.heun import heun

from .measured import Error

DATA = Path(__file__).parent / "data"
GOLD = np.load(DATA / "B_edm.npz", allow_pickle=False)
CASES = json.loads((DATA / "manifest_AB.json").read_text())["sections"]["B_edm"]["cases"]
GAIN, SIGMA_DATA = CASES["toy"]["gain"], CASES["toy"]["sigma_data"]
TOLERANCE = 1e-10

Record = Callable[[str, object], None]


def named(prefix: str) -> list[str]:
    found = sorted(case for case in CASES if case.startswith(prefix))
    assert found
    return found


def gold(key: str) -> Tensor:
    return torch.from_numpy(GOLD[key])


def close(record: Record, **pairs: tuple[Tensor, Tensor]) -> None:
    """Require relative errors, max |a - b| / max |b| over an array, within the tolerance; record the largest."""
    worst = 0.0
    for name, (mine, theirs) in pairs.items():
        assert mine.shape == theirs.shape, name
        error = Error((mine - theirs).abs().max() / (theirs.abs().max() or 1.0))
        assert error <= TOLERANCE, f"{name}: relative error {error:.2e}"
        worst = max(worst, error)
    record("max_relative_error", float(worst))


class Toy(nn.Module):
    """The fixtures' shared network: (x, c_noise, label) -> C channels."""

    def __init__(self) -> None:
        super().__init__()
        for name in "SWVbE":
            self.register_parameter(name, nn.Parameter(gold(f"toy/{name}").clone()))

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        def mix(m: Tensor, inputs: Tensor) -> Tensor:
            return torch.einsum("oc,bchw->bohw", m, inputs)

        shifted = x + c_noise.reshape(-1, 1, 1, 1)
        bias = self.b if label is None else self.b + self.E[label]
        bias = bias.reshape(-1, x.shape[1], 1, 1)
        return GAIN * torch.tanh(mix(self.S, x) + mix(self.W, shifted.sin()) + mix(self.V, x.roll(-1, 3)) + bias)


def denoiser() -> Preconditioned:
    return Preconditioned(
        Toy(), targets.edm(SIGMA_DATA), c_in=unit_variance(SIGMA_DATA), c_noise=conditioning.quarter_log_nsr()
    )


class Watched:
    """A denoiser that remembers the nsr of every call."""

    def __init__(self, inner: Preconditioned) -> None:
        self.inner = inner
        self.calls: list[float] = []

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        self.calls.append(float(level.nsr))
        return self.inner(x, level, label)


def label_of(case: dict) -> Tensor | None:
    return gold("toy/labels").argmax(1) if case["labels"] else None


def noise(step: int) -> Tensor:
    return gold("toy/noise")[step]


def churn_of(case: dict) -> dict[str, float]:
    return {
        "churn": float(case["S_churn"]),
        "s_min": float(case["S_min"]),
        "s_max": float(case["S_max"]),
        "s_noise": float(case["S_noise"]),
        "nsr_max": math.inf,  # the reference does not stop churn at the start of the grid
    }


@torch.no_grad()
@pytest.mark.parametrize("name", named("edm_sampler_"))
def test_edm_sampler(name: str, record_property: Record) -> None:
    case = CASES[name]
    grid = grids.karras(case["num_steps"], case["sigma_min"], case["sigma_max"], case["rho"])
    watched = Watched(denoiser())
    x = gold("toy/latents") * float(grid.sigma[0])
    *_, last = heun(watched, x, grid, noise=noise, label=label_of(case), **churn_of(case))
    assert len(watched.calls) == case["nfe"]
    close(
        record_property,
        out=(last.x, gold(f"{name}/out")),
        calls=(torch.tensor(watched.calls, dtype=torch.float64), gold(f"{name}/sigma_calls")),
    )


def grid_of(discretization: str, steps: int) -> Level:
    if discretization == "vp":
        return grids.uniform(schedules.vp(), steps, t_min=1e-3)
    if discretization == "ve":
        return grids.logsnr(steps, 0.02, 100.0)
    if discretization == "iddpm":
        return grids.iddpm(schedules.cosine(1000).levels, steps)
    return grids.karras(steps)


def gauge_of(case: dict, grid: Level) -> Gauge:
    """The gauge of the case's time: sigma(t) and s(t) as the reference defines them."""
    if case["schedule"] == "linear":
        return gauges.ve
    if case["schedule"] == "ve":  # sigma = sqrt(t)
        return gauges.along("ve-time", lambda u: Level(torch.ones_like(u), u.sqrt()), torch.square)
    # the VP time in which nsr runs from the grid's end at t = 1e-3 to its start at t = 1
    late, early = (math.log1p(float(grid.nsr[i]) ** 2) for i in (0, -2))
    eps = case["epsilon_s"]
    slope = 2 * (early / eps - late) / (eps - 1)
    beta_min = late - slope / 2
    time = conditioning.vp_time(beta_min, beta_min + slope, scale=1.0)

    def path(u: Tensor) -> Level:  # `schedules.vp`, which refuses the negative beta_min that is fitted here
        log_alpha = -(u**2) * slope / 4 - u * beta_min / 2
        return Level(log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt())

    def inverse(nsr: Tensor) -> Tensor:  # with a negative beta_min two times are clean: the end is 0
        return torch.where(nsr > 0, time(Level.of(1.0, nsr)), 0.0)

    return gauges.along("vp-time", path, inverse)


@torch.no_grad()
@pytest.mark.parametrize("name", named("ablation_"))
def test_ablation_sampler(name: str, record_property: Record) -> None:
    case = CASES[name]
    grid = grid_of(case["discretization"], case["num_steps"])
    watched = Watched(denoiser())
    x = gold("toy/latents") * float(grid.sigma[0])
    options = {"gauge": gauge_of(case, grid), **churn_of(case)}
    if case["solver"] == "heun":
        walk = heun(watched, x, grid, noise=noise, midpoint=float(case["alpha"]), **options)
    else:
        walk = euler(watched, x, grid, noise=noise, **options)
    *_, last = walk
    out = last.x
    close(
        record_property,
        out=(out, gold(f"{name}/out")),
        steps=(grid.nsr[:-1], gold(f"{name}/sigma_steps")),
        calls=(torch.tensor(watched.calls, dtype=torch.float64), gold(f"{name}/sigma_calls")),
    )


@pytest.mark.parametrize("name", named("grid_"))
def test_discretisation(name: str, record_property: Record) -> None:
    case = CASES[name]
    grid = grid_of(case["discretization"], case["num_steps"])
    theirs = gold(f"{name}/sigma_steps")
    # every level counts, not only the largest: ratios against 1
    close(record_property, levels=(grid.nsr[:-1] / theirs, torch.ones_like(theirs)))
    assert float(grid.sigma[-1]) == 0


@pytest.mark.parametrize("name", named("loss_"))
def test_loss(name: str, record_property: Record) -> None:
    kind = CASES[name]["function"]
    variate = gold(f"{name}/draw").flatten()
    if kind == "EDMLoss":
        level = draws.lognormal()(torch.special.ndtr(variate))
        weighting = weightings.edm(SIGMA_DATA)
    elif kind == "VPLoss":  # its time falls as the variate grows
        level = draws.uniform(schedules.vp(), t_min=1e-5)(1 - variate)
        weighting = weightings.simple()
    else:
        level = draws.uniform(schedules.ve())(variate)
        weighting = weightings.simple()
    level = Level.of(1.0, level.nsr)
    model = denoiser()
    x0, n = gold(f"{name}/images"), gold(f"{name}/noise")
    noisy = level.noisy(x0, n)
    f, _ = model.raw(noisy, level, gold("toy/labels").argmax(1))
    a, b = model.target(level)
    weight = weighting(level, model.target) * skip_and_out(model.target, level)[1] ** 2
    loss = like(weight, x0) * (f - like(a, x0) * x0 - like(b, x0) * n).square()
    (loss.sum() / len(x0)).backward()
    close(
        record_property,
        sigma=(level.nsr, gold(f"{name}/sigma").flatten()),
        noisy=(noisy, gold(f"{name}/noisy")),
        loss=(loss.detach(), gold(f"{name}/loss")),
        **{p: (getattr(model.network, p).grad, gold(f"{name}/grad_{p}")) for p in "SWVbE"},
    )


def preconditioning() -> dict[str, tuple[Target, Callable[[Level], Tensor], Callable[[Level], Tensor]]]:
    """(target, c_in, c_noise) of each of the four."""
    return {
        "VP": (targets.eps(), unit_circle(), conditioning.vp_time()),
        "VE": (targets.score(), lambda level: torch.ones_like(level.alpha), conditioning.log_nsr(factor=0.5)),
        "iDDPM": (targets.eps(), unit_circle(), conditioning.index(schedules.cosine(1000).levels)),
        "EDM": (targets.edm(0.5), unit_variance(0.5), conditioning.quarter_log_nsr()),
    }


@pytest.mark.parametrize("kind", ["VP", "VE", "iDDPM", "EDM"])
def test_preconditioning(kind: str, record_property: Record) -> None:
    name = f"precond_{kind}Precond"
    target, c_in, c_noise = preconditioning()[kind]
    level = Level.of(1.0, gold(f"{name}/sigma"))
    c_skip, c_out = skip_and_out(target, level)
    pairs = {"skip": (c_skip, "c_skip"), "out": (c_out, "c_out"), "in": (c_in(level), "c_in")}
    close(record_property, **{k: (mine, gold(f"{name}/{theirs}")) for k, (mine, theirs) in pairs.items()})
    if kind != "iDDPM":
        close(record_property, noise=(c_noise(level), gold(f"{name}/c_noise")))


def test_rounding_to_a_table(record_property: Record) -> None:
    """The reference's u table is our cosine table, and `snap` finds the same entries (sigma 0 is not one of ours)."""
    name = "precond_iDDPMPrecond"
    table = schedules.cosine(1000).levels
    network = Preconditioned(Toy(), targets.eps(), c_noise=conditioning.index(table), table=table)
    sigma, rounded = gold(f"{name}/sigma"), gold(f"{name}/round_sigma")
    near = network.snap(Level.of(1.0, sigma[rounded > 0]))
    close(
        record_property,
        table=(table.nsr.flip(0), gold(f"{name}/u")),
        rounded=(near.nsr, rounded[rounded > 0]),
        noise=(conditioning.index(table)(near), gold(f"{name}/c_noise")[rounded > 0]),
    )


@pytest.mark.parametrize(("kind", "schedule"), [("VP", schedules.vp()), ("VE", schedules.ve())])
def test_trained_range(kind: str, schedule: Callable[[Tensor], Level], record_property: Record) -> None:
    ends = schedule(torch.tensor([1e-5 if kind == "VP" else 0.0, 1.0], dtype=torch.float64)).nsr
    theirs = torch.stack([gold(f"precond_{kind}Precond/sigma_{end}") for end in ("min", "max")])
    close(record_property, ends=(ends / theirs, torch.ones(2, dtype=torch.float64)))
