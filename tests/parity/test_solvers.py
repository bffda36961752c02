"""Golden numbers of k-diffusion, diffusers and dpm-solver on exact denoisers (section D of the fixtures).

Every stored solver run is one call of one of our samplers: `CASES` maps its configuration to (sampler, options). All
trajectories are compared, not only their ends. Tolerance: relative 1e-9 (max |a - b| / max |b|).
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato import grids
from sfumato.core import exact, find
from sfumato.core.denoiser import Counted
from sfumato.core.level import Level

from .measured import Error

DATA = Path(__file__).parent / "data"
MANIFEST = json.loads((DATA / "manifest_D.json").read_text())["cases"]
TOLERANCE = 1e-9


@functools.cache
def stored(case: str) -> dict[str, torch.Tensor]:
    with np.load(DATA / "D_solvers.npz", allow_pickle=False) as arrays:
        return {
            key.removeprefix(case + "/"): torch.as_tensor(arrays[key])
            for key in arrays.files
            if key.startswith(case + "/")
        }


@functools.cache
def denoiser(data: str) -> exact.Gaussian | exact.GaussianMixture:
    d = stored(f"data_{data}")
    if data == "gauss":
        return exact.Gaussian(d["mu"], d["s2"], d["Q"])
    parts = [exact.Gaussian.from_covariance(mu, cov) for mu, cov in zip(d["mu"], d["Sigma"])]
    return exact.GaussianMixture(d["w"], parts)


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return Error((ours - theirs).abs().max() / theirs.abs().max())


def run(name: str, data: str, x: torch.Tensor, grid: Level, noise=None, **options) -> tuple[torch.Tensor, int]:
    """Return the trajectory (N, B, d) and the number of calls."""
    counted = Counted(denoiser(data))
    walk = find.find("sampler", name)(counted, x, grid, noise=noise, **options)
    return torch.stack([state.x for state in walk]), counted.nfe


def ve(sigmas: torch.Tensor) -> Level:
    return Level.of(1.0, sigmas)


def vp(sigmas: torch.Tensor) -> Level:
    return Level.of(1 / (1 + sigmas**2).sqrt(), sigmas / (1 + sigmas**2).sqrt())


def configuration(case: str) -> str:
    """Return the part of a k-diffusion or diffusers case name that names the solver."""
    return case.split("_", 3)[3]


@pytest.mark.parametrize("data", ["gauss", "gmm"])
def test_denoisers(data):
    d, D = stored(f"data_{data}"), denoiser(data)
    level = Level.of(1.0, d["probe_sigma"])
    x0 = D(d["probe_x"], level).x0
    assert error(x0, d["probe_denoised"]) < TOLERANCE
    if data == "gmm":
        assert error(D.log_density(d["probe_x"], level), d["probe_logp"]) < TOLERANCE
        score = (x0 - d["probe_x"]) / d["probe_sigma"].unsqueeze(1) ** 2
        assert error(score, d["probe_score"]) < TOLERANCE


def test_every_case_is_used():
    solvers = {*kdiff_cases(), *diffusers_cases(), *pndm_cases(), *(c for c in MANIFEST if c.startswith("dpmsolver_"))}
    assert set(MANIFEST) - solvers == {c for c in MANIFEST if c.startswith(("data_", "grid_"))}


@pytest.mark.parametrize("case", [c for c in MANIFEST if c.startswith("grid_")])
def test_grids(case):
    grid = grids.karras(int(case.rsplit("_", 1)[1]))
    assert error(grid.sigma, stored(case)["sigmas"]) < 1e-13


def test_closed_form_endpoint():
    d = stored("data_gauss")
    start = Level.of(1.0, 80.0)
    for name, sigma in (("ode_endpoint_sigma0", 0.0), ("ode_endpoint_sigma_min", 0.002)):
        assert error(denoiser("gauss").ode(d["x_init_ve"], start, Level.of(1.0, sigma)), d[name]) < TOLERANCE


# k-diffusion: a sampler, its options, and whether its grid is interleaved with the stages of singlestep methods
KDIFF = {
    "euler": ("dpmpp", {"order": 1}, False),
    "heun": ("heun", {}, False),
    "lms": ("adams", {"order": 4, "gauge": "ve"}, False),
    "lms_order3": ("adams", {"order": 3, "gauge": "ve"}, False),
    "dpmpp_2m": ("dpmpp", {"order": 2, "moments": "midpoint"}, False),
    "dpmpp_2m_sde_solver_typemidpoint": ("dpmpp-sde", {"order": 2, "moments": "midpoint"}, False),
    "dpmpp_2m_sde_solver_typeheun_eta0.5": ("dpmpp-sde", {"order": 2, "moments": "exact", "eta": 0.5}, False),
    "dpmpp_3m_sde": ("dpmpp-sde", {"order": 3, "moments": "exact", "published": True}, False),
    "dpmpp_3m_sde_eta0.0": ("dpmpp", {"order": 3, "moments": "exact", "published": True}, False),
    "euler_ancestral": ("singlestep", {"order": 1, "eta": 1.0}, False),
    "dpm_2": ("singlestep", {"order": 2, "predict": "noise", "moments": "midpoint"}, True),
    "dpmpp_2s_ancestral_eta0.7": ("singlestep", {"order": 2, "moments": "midpoint", "eta": 0.7}, True),
    "dpmpp_2s_ancestral_eta0.0": ("singlestep", {"order": 2, "moments": "midpoint"}, True),
}


def interleaved(sigmas: torch.Tensor, eta: float) -> torch.Tensor:
    """Put the log-midpoint of every step (to its ancestral end) between its two levels; the last step has none."""
    t, s = sigmas[:-2], sigmas[1:-1]
    down = (s**2 - eta**2 * s**2 * (t**2 - s**2) / t**2).sqrt()
    return torch.cat((torch.stack((t, (t * down).sqrt()), 1).flatten(), sigmas[-2:]))


def kdiff_cases():
    return [c for c in MANIFEST if c.startswith("kdiff_") and configuration(c) in KDIFF]


@pytest.mark.parametrize("case", kdiff_cases())
def test_k_diffusion(case):
    info, arrays = MANIFEST[case], stored(case)
    name, options, stages = KDIFF[configuration(case)]
    data = stored(f"data_{info['data']}")
    sigmas = stored(f"grid_{info['data']}_{info['N']}")["sigmas"]
    if stages:  # the sampler makes the same stages between the levels of a plain grid
        each = options | {"stages": "between"}
        walk, nfe = run(name, info["data"], data["x_init_ve"], ve(sigmas), lambda step: data["noise"][step], **each)
        assert nfe == info["nfe"]
        assert error(walk[-1], arrays["out"]) < TOLERANCE
        assert error(walk[:-1], arrays["x_before_step"][1:]) < TOLERANCE
    stride = 2 if stages else 1
    levels = interleaved(sigmas, options.get("eta", 0.0)) if stages else sigmas
    walk, nfe = run(
        name, info["data"], data["x_init_ve"], ve(levels), lambda step: data["noise"][step // stride], **options
    )
    assert nfe == info["nfe"]
    assert error(walk[-1], arrays["out"]) < TOLERANCE
    assert error(walk[stride - 1 : -1 : stride], arrays["x_before_step"][1:]) < TOLERANCE
    if "out_if_second_difference_doubled" in arrays:
        options = options | {"published": False}
        walk, _ = run(name, info["data"], data["x_init_ve"], ve(levels), lambda step: data["noise"][step], **options)
        assert error(walk[-1], arrays["out_if_second_difference_doubled"]) < TOLERANCE


DIFFUSERS = {
    "dpmpp_1M": ("dpmpp", {"order": 1}),
    "dpmpp_2M": ("dpmpp", {"order": 2, "moments": "midpoint"}),
    "dpmpp_2M_heun": ("dpmpp", {"order": 2, "moments": "exact"}),
    "dpmpp_3M": ("dpmpp", {"order": 3, "moments": "midpoint", "published": True}),
    "dpmpp_3M_nozero": ("dpmpp", {"order": 3, "moments": "midpoint", "published": True}),
    "sde_dpmpp_2M": ("dpmpp-sde", {"order": 2, "moments": "midpoint"}),
    "dpm_2M_noisepred": ("dpmpp", {"order": 2, "moments": "midpoint", "predict": "noise"}),
    "unipc_2_bh1": ("unipc", {"order": 2, "variant": "bh1"}),
    "unipc_2_bh2": ("unipc", {"order": 2, "variant": "bh2"}),
    "unipc_3_bh2": ("unipc", {"order": 3, "variant": "bh2"}),
    "deis_2": ("deis", {"order": 2, "coordinate": "logrho"}),
    "deis_3": ("deis", {"order": 3, "coordinate": "logrho"}),
}


def diffusers_cases():
    return [c for c in MANIFEST if c.startswith("diffusers_") and configuration(c) in DIFFUSERS]


@pytest.mark.parametrize("case", diffusers_cases())
def test_diffusers(case):
    info, arrays = MANIFEST[case], stored(case)
    name, options = DIFFUSERS[configuration(case)]
    if name != "unipc":  # the schedulers lower the last orders only for fewer than 15 steps
        options = options | {"lower_final": info["N"] < 15 and info["options"].get("lower_order_final", True)}
    data = stored(f"data_{info['data']}")
    grid = vp(arrays["sigmas"])
    walk, nfe = run(
        name, info["data"], data["x_init_ve"] / 80.0 * grid.sigma[0], grid, lambda step: data["noise"][step], **options
    )
    assert nfe == info["N"]
    assert error(walk, arrays["traj"]) < TOLERANCE


def pndm_cases():
    return [c for c in MANIFEST if "_pndm_" in c]


@pytest.mark.parametrize("case", pndm_cases())
def test_pndm(case):
    """PLMS, and PNDM begun by Runge-Kutta, after every call whose result is kept."""
    info, arrays = MANIFEST[case], stored(case)
    abar = torch.cat((arrays["alphas_cumprod_at_timesteps"], arrays["final_alpha_cumprod"].reshape(1)))
    times = arrays["timesteps"].tolist()
    visited = [i for i, t in enumerate(times) if t not in times[:i]]
    abar = abar[[*visited, -1]]
    warmup = "runge-kutta" if "prk" in case else "heun"
    walk, nfe = run("pndm", info["data"], arrays["x_init"], Level.of(abar.sqrt(), (1 - abar).sqrt()), warmup=warmup)
    assert nfe == len(times)
    # of Runge-Kutta's four calls, the second ends at the middle with what is kept, the fourth at the end
    reached = [1, 3, 5, 7, 9, 11, *range(12, len(times))] if "prk" in case else [*range(1, len(times))]
    assert error(walk, arrays["traj"][reached]) < TOLERANCE


DPM_SOLVER = {
    "dpmsolver++_multistep2_logSNR_12": ("dpmpp", {"order": 2, "moments": "midpoint"}),
    "dpmsolver++_multistep3_time_uniform_15": ("dpmpp", {"order": 3, "moments": "midpoint", "published": True}),
    "dpmsolver_multistep2_logSNR_12": ("dpmpp", {"order": 2, "predict": "noise", "moments": "midpoint"}),
    "dpmsolver_multistep3_logSNR_15": (
        "dpmpp",
        {"order": 3, "predict": "noise", "moments": "midpoint", "published": True},
    ),
    "dpmsolver_singlestep3_logSNR_15": (
        "singlestep",
        {"order": 3, "predict": "noise", "moments": "midpoint", "lower_final": True},
    ),
    "dpmsolver++_singlestep2_time_uniform_12": ("singlestep", {"order": 2, "moments": "midpoint"}),
    "dpmsolver_singlestep_fixed3_logSNR_15": ("singlestep", {"order": 3, "predict": "noise"}),
}


@pytest.mark.parametrize("case", [c for c in MANIFEST if c.startswith("dpmsolver_")])
def test_dpm_solver(case):
    info, arrays = MANIFEST[case], stored(case)
    name, options = DPM_SOLVER[case.split("_", 2)[2]]
    levels = torch.cat((arrays["levels_alpha_sigma_per_model_call"], arrays["final_alpha_sigma"].reshape(1, 2)))
    walk, nfe = run(name, info["data"], arrays["x_init"], Level.of(levels[:, 0], levels[:, 1]), **options)
    assert nfe == info["nfe"]
    assert error(walk[-1], arrays["out"]) < TOLERANCE
