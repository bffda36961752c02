"""Discrete diffusion against numbers made by openai/guided-diffusion: tables, respacing, samplers, guidance, losses.

The fixtures' toy network becomes a `Preconditioned` denoiser, so these numbers pass through the same code as a real
run: table, target, learned variance, kernel, sampler, guidance. Bits per dimension are in `test_likelihood`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfumato import conditioning, draws, grids, schedules, weightings
from sfumato.core import target as targets
from sfumato.core.denoiser import Preconditioned, skip_and_out
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level, like
from sfumato.guidance.classifier import classifier, gradient
from sfumato.guidance.threshold import threshold
from sfumato.samplers.ancestral import ancestral
from sfumato.samplers.ddim import ddim, encode

from .measured import Error

DATA = Path(__file__).parent / "data"
GOLD = np.load(DATA / "A_discrete.npz", allow_pickle=False)
CASES = json.loads((DATA / "manifest_AB.json").read_text())["sections"]["A_discrete"]["cases"]
TAU, GAIN = CASES["toy"]["tau"], CASES["toy"]["gain"]
HEADS = {"fixed_small": "none", "fixed_large": "none", "learned_range": "range", "learned": "diagonal"}
VARIANCES = {"fixed_small": "small", "fixed_large": "large", "learned_range": "learned", "learned": "diagonal"}
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
    """The fixtures' shared network: (x, original timestep) -> Cout channels."""

    def __init__(self, channels_out: int) -> None:
        super().__init__()
        for name in "SWVb":
            self.register_parameter(name, nn.Parameter(gold(f"toy/{name}")[:channels_out].clone()))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        def mix(m: Tensor, inputs: Tensor) -> Tensor:
            return torch.einsum("oc,bchw->bohw", m, inputs)

        shifted = x + t.reshape(-1, 1, 1, 1) / TAU
        total = mix(self.S, x) + mix(self.W, shifted.sin()) + mix(self.V, x.roll(-1, 3))
        return GAIN * torch.tanh(total + self.b.reshape(-1, 1, 1))


def table_of(case: dict) -> Level:
    return {"linear": schedules.linear, "cosine": schedules.cosine}[case["schedule"]](case["T"]).levels


def grid_of(case: dict) -> Level:
    table = table_of(case)
    return grids.full(table) if case["respacing"] == "full" else grids.respaced(table, spec=case["respacing"])


def denoiser_of(case: dict) -> Preconditioned:
    table, chain = table_of(case), grids.full(grid_of(case))  # `full` turns a table into a grid and back
    target = {"eps": targets.eps(), "x0": targets.x0(), "prev": targets.mu_tilde(chain)}[case["mean"]]
    head = HEADS[case["variance"]]
    scale = 1000 / case["T"] if case.get("rescale_timesteps") else 1.0
    return Preconditioned(
        Toy(3 if head == "none" else 6),
        target,
        c_noise=conditioning.index(table, scale=scale),
        table=table,
        variance=head,
    )


def logits_of(case: dict) -> Callable[[Tensor, Level], Tensor]:
    u, a, timestep = gold("toy/U"), gold("toy/a"), conditioning.index(table_of(case))
    return lambda x, level: torch.einsum("kc,bchw->bk", u, x.tanh()) / (1 + timestep(level) / TAU) + a


def noise(step: int) -> Tensor:
    return gold("toy/noise")[step]


@pytest.mark.parametrize("name", named("table_"))
def test_table(name: str, record_property: Record) -> None:
    table = table_of(CASES[name])
    grid = grids.full(table)
    exact, chain = Kernel.between(grid[1:], grid[:-1]), Kernel.chain(grid)
    close(
        record_property,
        betas=(exact.log_var_large.exp().flip(0), gold(f"{name}/betas")),
        abar=(table.abar[1:], gold(f"{name}/alphas_cumprod")),
        variance=(exact.log_var_small.exp().flip(0), gold(f"{name}/posterior_variance")),
        log_variance=(chain.log_var_small.flip(0), gold(f"{name}/posterior_log_variance_clipped")),
        coef_x0=(exact.x0.flip(0), gold(f"{name}/posterior_mean_coef1")),
        coef_xt=(exact.xt.flip(0), gold(f"{name}/posterior_mean_coef2")),
    )


@pytest.mark.parametrize("name", named("respace_"))
def test_respaced_chain(name: str, record_property: Record) -> None:
    case = CASES[name]
    grid, table = grid_of(case), table_of(case)
    kept = (conditioning.index(table)(grid[:-1])).flip(0).long()
    assert torch.equal(kept, gold(f"{name}/use_timesteps"))
    chain = Kernel.chain(grid)
    close(
        record_property,
        betas=(chain.log_var_large.exp().flip(0), gold(f"{name}/betas")),
        abar=(grid.abar[:-1].flip(0), gold(f"{name}/alphas_cumprod")),
        log_variance=(chain.log_var_small.flip(0), gold(f"{name}/posterior_log_variance_clipped")),
    )


@torch.no_grad()
@pytest.mark.parametrize("name", named("psample_") + named("guided_p_"))
def test_ancestral(name: str, record_property: Record) -> None:
    case = CASES[name]
    # a network that predicts the step's mean is not clipped; only the x0 it implies is
    clip = case["clip_denoised"] and case["mean"] != "prev"
    shift = gradient(logits_of(case), case["guidance_scale"]) if "guidance_scale" in case else None
    states = list(
        ancestral(
            denoiser_of(case),
            gold("toy/x_T"),
            grid_of(case),
            noise=noise,
            label=gold("toy/y"),
            variance=VARIANCES[case["variance"]],
            clip=clip,
            shift=shift,
        )
    )
    x0 = states[-1].x0.clamp(-1, 1) if case["clip_denoised"] else states[-1].x0
    close(
        record_property,
        trajectory=(torch.stack([s.x for s in states]), gold(f"{name}/traj")),
        x0=(x0, gold(f"{name}/pred_x0_last")),
    )


@torch.no_grad()
@pytest.mark.parametrize("name", named("ddim_") + named("guided_ddim_"))
def test_ddim(name: str, record_property: Record) -> None:
    case = CASES[name]
    denoiser = denoiser_of(case)
    if case["clip_denoised"]:
        denoiser = threshold(denoiser)
    if "guidance_scale" in case:
        denoiser = classifier(denoiser, logits_of(case), case["guidance_scale"])
    states = list(ddim(denoiser, gold("toy/x_T"), grid_of(case), noise=noise, label=gold("toy/y"), eta=case["eta"]))
    close(
        record_property,
        trajectory=(torch.stack([s.x for s in states]), gold(f"{name}/traj")),
        x0=(states[-1].x0, gold(f"{name}/pred_x0_last")),
    )


@torch.no_grad()
@pytest.mark.parametrize("name", named("ddimreverse_"))
def test_ddim_encoding(name: str, record_property: Record) -> None:
    case = CASES[name]
    grid = grid_of(case)
    beyond = Level(torch.cat((torch.zeros(1), grid.alpha)), torch.cat((torch.ones(1), grid.sigma)))
    states = list(encode(denoiser_of(case), gold("toy/x0"), beyond, clip=case["clip_denoised"]))
    close(record_property, trajectory=(torch.stack([s.x for s in states]), gold(f"{name}/traj")))


@pytest.mark.parametrize("name", [n for n in named("loss_") if "mse" in CASES[n]["terms"]])
def test_mean_squared_error(name: str, record_property: Record) -> None:
    case = CASES[name]
    denoiser = denoiser_of(case)
    x0, n = gold("toy/x0"), noise(0)
    level = grids.full(grid_of(case))[1 + gold(f"{name}/t")]
    f, _ = denoiser.raw(level.noisy(x0, n), level)
    a, b = denoiser.target(level)
    weight = weightings.native()(level, denoiser.target) * skip_and_out(denoiser.target, level)[1] ** 2
    each = weight * (f - like(a, x0) * x0 - like(b, x0) * n).square().flatten(1).mean(1)
    each.mean().backward()
    close(
        record_property,
        loss=(each.detach(), gold(f"{name}/term_mse")),
        **{p: (getattr(denoiser.network, p).grad, gold(f"{name}/grad_mse_{p}")) for p in "SWVb"},
    )


@pytest.mark.parametrize("name", named("resampler_"))
def test_importance_draw(name: str, record_property: Record) -> None:
    case = CASES[name]
    table = schedules.cosine(case["T"]).levels
    draw = draws.importance(table, history=case["history_per_term"], uniform_share=case["uniform_prob"])
    weights = []
    for t, loss, warm in zip(gold(f"{name}/ts"), gold(f"{name}/losses"), gold(f"{name}/warmed_up")):
        draw.update(table[1 + t], loss)
        assert draw.warm == bool(warm)
        weights.append(draw.weights)
    close(
        record_property,
        weights=(torch.stack(weights), gold(f"{name}/weights_after_each_update")),
        importance=(draw.weight(table[1:]), gold(f"{name}/importance_weight")),
    )
