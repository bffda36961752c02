"""Likelihoods against numbers made by the reference implementations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato import grids, schedules
from sfumato.core import gauge
from sfumato.core import target as targets
from sfumato.core.denoiser import Prediction, skip_and_out
from sfumato.core.exact import Gaussian
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level, index_in, like
from sfumato.likelihood.gaussian import cdf_tanh, discretised_tanh, normal_kl
from sfumato.likelihood.ode import Likelihood, likelihood
from sfumato.likelihood.vlb import BITS, Bound, term, vlb

from .measured import Error

DATA = Path(__file__).parent / "data"
A = np.load(DATA / "A_discrete.npz", allow_pickle=False)
F = np.load(DATA / "F_likelihood.npz", allow_pickle=False)
CASES = json.loads((DATA / "manifest_F.json").read_text())["cases"]
VARIANCE = {"fixed_small": "small", "fixed_large": "large", "learned_range": "learned"}


def named(prefix: str) -> list[str]:
    found = sorted(case for case in CASES if case.startswith(prefix))
    assert found
    return found


def gold(key: str) -> Tensor:
    return torch.from_numpy((A if key in A else F)[key])


def close(mine: Tensor, theirs: Tensor, tolerance: float = 1e-10) -> None:
    """Relative error as the fixtures define it: max |a - b| / max |b| over one array."""
    assert mine.shape == theirs.shape
    assert Error((mine - theirs).abs().max() / (theirs.abs().max() or 1.0)) <= tolerance


class Toy:
    """The shared toy network as a denoiser on the levels of a chain."""

    def __init__(self, config: dict) -> None:
        self.original = getattr(schedules, config["schedule"])(config["T"]).levels
        spec = config["respacing"]
        self.grid = grids.full(self.original) if spec == "full" else grids.respaced(self.original, spec=spec)
        self.chain = self.grid[torch.arange(len(self.grid) - 1, -1, -1)]
        prev = targets.mu_tilde(self.chain)
        self.target = {"eps": targets.eps(), "x0": targets.x0(), "prev": prev}[config["mean"]]
        self.learned = config["variance"] == "learned_range"
        self.p = {name: gold(f"toy/{name}").clone().requires_grad_() for name in "SWVb"}

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        channels = x.shape[1] * (2 if self.learned else 1)
        t = (index_in(self.original, level) - 1).double().reshape(-1, 1, 1, 1)
        rows = (self.p[name][:channels] for name in "SWV")
        parts = (x, torch.sin(x + t / CASES["toy"]["tau"]), x.roll(-1, 3))
        total = sum(torch.einsum("oc,bchw->bohw", m, part) for m, part in zip(rows, parts))
        out = CASES["toy"]["gain"] * torch.tanh(total + self.p["b"][:channels].reshape(1, -1, 1, 1))
        f, v = out.chunk(2, 1) if self.learned else (out, None)
        c_skip, c_out = skip_and_out(self.target, level)
        return Prediction(like(c_skip, x) * x + like(c_out, x) * f, None if v is None else (v + 1) / 2)


@pytest.mark.parametrize("case", named("bpd_"))
def test_every_term_of_the_bound(case: str) -> None:
    config = CASES[case]
    toy, x0, noise = Toy({"respacing": "full", **config}), gold("toy/x0"), gold("toy/noise")
    options = {"noise": lambda k: noise[k], "variance": VARIANCE[config["variance"]], "decoder": discretised_tanh}
    # with a network that outputs the mean itself the reference clips x0-hat, not the mean
    clips_mean = config["clip_denoised"] and config["mean"] != "prev"
    bound = Bound.gather(x0, toy.grid, vlb(toy, x0, toy.grid, clip=clips_mean, **options))
    close(bound.terms, gold(f"{case}/vb"))
    close(bound.prior, gold(f"{case}/prior_bpd"))
    close(bound.total, gold(f"{case}/total_bpd"))
    if config["clip_denoised"] != clips_mean:
        bound = Bound.gather(x0, toy.grid, vlb(toy, x0, toy.grid, clip=True, **options))
    close(bound.x0_mse, gold(f"{case}/xstart_mse"))
    snr = bound.grid.log_snr[:-1].exp()
    close(bound.x0_mse * snr, gold(f"{case}/mse"))  # of the noise that x0-hat implies


def with_bound_term() -> list[str]:
    return [c for c in named("loss_") if "kl" in CASES[c]["loss"] or "vb" in CASES[c]["terms"]]


@pytest.mark.parametrize("case", with_bound_term())
def test_training_terms_and_their_gradients(case: str) -> None:
    config = CASES[case]
    toy, x0 = Toy(config), gold("toy/x0")
    steps = len(toy.grid) - 1
    index = steps - 1 - gold(f"{case}/t")  # the references count from the clean end
    level = toy.grid[index]
    prediction = toy(level.noisy(x0, gold("toy/noise")[0]), level)
    scale = {"kl": 1, "rescaled_kl": steps, "mse": 1, "rescaled_mse": steps / 1000}[config["loss"]]
    name = "loss" if "kl" in config["loss"] else "vb"
    if name == "vb":
        prediction = Prediction(prediction.x0.detach(), prediction.v)
    bits = scale * term(
        prediction,
        x0,
        Kernel.chain(toy.grid)[index],
        index == steps - 1,
        variance=VARIANCE[config["variance"]],
        decoder=discretised_tanh,
    )
    close(bits.detach(), gold(f"{case}/term_{name}"))
    bits.mean().backward()
    for key, parameter in toy.p.items():
        theirs = gold(f"{case}/grad_{name}_{key}")
        close(parameter.grad[: len(theirs)], theirs)  # a fixed variance uses the first half of the rows


@pytest.mark.parametrize("case", named("discretized_gaussian"))
def test_discretised_gaussian_of_the_references(case: str) -> None:
    x, mean, log_scale = (gold(f"{case}/{key}") for key in ("x", "means", "log_scales"))
    mine = discretised_tanh(x[:, None, None], mean[None, :, None], 2 * log_scale[None, None, :])
    close(mine, gold(f"{case}/log_prob"))


def test_gaussian_divergence_and_distribution_function() -> None:
    m1, v1, m2, v2 = (gold(f"normal_kl/{key}") for key in ("mean1", "logvar1", "mean2", "logvar2"))
    close(normal_kl(m1 - m2, v1, v2), gold("normal_kl/kl"))
    close(cdf_tanh(gold("normal_cdf_tanh/x")), gold("normal_cdf_tanh/cdf"))
    assert pytest.approx(1.4426950408889634) == BITS


@pytest.mark.parametrize("case", named("ode_vp_"))
def test_likelihood_along_the_probability_flow(case: str) -> None:
    config, data = CASES[case], gold(f"{case}/data")
    schedule = schedules.vp(config["beta_min"], config["beta_max"])
    near, far = (schedule(torch.tensor(t, dtype=torch.float64)) for t in (config["t_eps"], 1.0))
    exact = Gaussian(gold(f"{case}/mu").flatten(), gold(f"{case}/s2").flatten())

    def run(probe: Tensor | None, tolerance: float) -> Likelihood:
        options = {"gauge": gauge.vp, "offset": 7.0, "rtol": tolerance, "atol": tolerance}
        return likelihood(exact, data, near, far, probe=probe, **options)

    tight = run(gold(f"{case}/epsilon"), 1e-11)
    close(tight.bits, gold(f"{case}/bpd_closed_form"))
    close(tight.bits, gold(f"{case}/bpd_tight"))
    close(tight.latent, gold(f"{case}/z_closed_form"), 1e-9)
    close(run(None, 1e-9).bits, gold(f"{case}/bpd_closed_form_exact_trace"), 1e-8)
    close(run(gold(f"{case}/epsilon"), 1e-5).bits, gold(f"{case}/bpd_closed_form"), 1e-4)
