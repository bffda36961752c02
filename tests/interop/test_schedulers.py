"""Every scheduler of diffusers is mapped to the same images, mapped with changes that are said, or refused by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.core.noise import SamplingNoise
from sfumato.interop.importing import Import, import_run
from sfumato.interop.schedulers import CLASSES, IDLE, read_scheduler
from sfumato.interop.tensors import ForeignError

diffusers = pytest.importorskip("diffusers")
SEEDS = list(range(3))
STEPS = 20
CHAIN = {"num_train_timesteps": 40, "beta_start": 0.0004, "beta_end": 0.05}


def classes_of_diffusers() -> dict[str, type]:
    """Return what diffusers exports as a scheduler, present or waiting for a package."""
    import diffusers.schedulers as package

    names = [n for n in dir(package) if n.endswith("Scheduler")]
    return {n: getattr(package, n) for n in names if n != "ScoreSdeVpScheduler"}  # that name is broken there


def test_no_scheduler_of_diffusers_is_missing_from_the_table() -> None:
    assert set(classes_of_diffusers()) <= set(CLASSES)
    for name, known in CLASSES.items():
        assert (known.read is None) == bool(known.why), name


@pytest.mark.parametrize("name", [n for n in CLASSES if CLASSES[n].read])
def test_the_table_knows_every_key_and_its_default(name: str) -> None:
    signature = inspect.signature(classes_of_diffusers()[name].__init__).parameters
    theirs = {key: p.default for key, p in signature.items() if key != "self"}
    assert dict(CLASSES[name].defaults) == theirs
    assert set(CLASSES[name].taken) <= set(theirs)


@pytest.mark.parametrize("name", [n for n in CLASSES if not CLASSES[n].read] + ["NewScheduler"])
def test_what_has_no_mathematics_here_is_refused_by_name(name: str) -> None:
    with pytest.raises(ForeignError, match=name):
        read_scheduler({"_class_name": name}, False)


def folder_with(scheduler: Any, path: Path, **unet: Any) -> Path:
    """Save a small UNet2DModel, every layer away from zero, beside a scheduler."""
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=16,
        **unet,
    )
    network.save_pretrained(str(path / "unet"))
    if scheduler is not None:
        scheduler.save_pretrained(str(path / "scheduler"))
    return path


def theirs(folder: Path, scheduler: Any, made: Import, steps: int, patch: pytest.MonkeyPatch) -> Tensor:
    """Walk as their documentation says, from our noise: its start is brought to the size of ours."""
    source = made.run.source()
    noise = SamplingNoise(torch.tensor(SEEDS), source.shape)
    unet = diffusers.UNet2DModel.from_pretrained(str(folder / "unet"))
    calls = iter(range(10**6))
    draw: Callable[..., Tensor] = lambda *_, **__: noise(next(calls))  # noqa: E731
    patch.setattr(f"{type(scheduler).__module__}.randn_tensor", draw, raising=False)
    scheduler.set_timesteps(steps)
    first = source.grid[0]
    in_sigma = hasattr(scheduler, "sigmas") and "Flow" not in type(scheduler).__name__
    on_circle = "step" in type(scheduler).__name__ and "EDM" not in type(scheduler).__name__
    size = float(first.nsr) if in_sigma and not on_circle else float(first.sigma)
    x = size * noise.start()
    with torch.no_grad():
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = scheduler.step(unet(scaled, t).sample, t, x).prev_sample
        if "DEIS" in type(scheduler).__name__:  # their walk leaves the noise of the chain's first level
            left = scheduler.convert_model_output(unet(x, torch.tensor(0)).sample, sample=x)
            alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[-1])
            x = (x - sigma * left) / alpha
    return x


def ours(made: Import) -> Tensor:
    source = made.run.source()
    return source.floats(SEEDS)


LEADING, TRAILING, LINSPACE = ({"timestep_spacing": s} for s in ("leading", "trailing", "linspace"))
EXACT: dict[str, tuple[str, dict[str, Any]]] = {
    "ddpm small": ("DDPMScheduler", {}),
    "ddpm large": ("DDPMScheduler", {"variance_type": "fixed_large", "clip_sample": False}),
    "ddpm null variance": ("DDPMScheduler", {"variance_type": None}),
    "ddpm range": ("DDPMScheduler", {"clip_sample_range": 0.3}),
    "ddpm v, no signal": ("DDPMScheduler", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    "ddpm sigmoid": ("DDPMScheduler", {"beta_schedule": "sigmoid"}),
    "ddpm betas": ("DDPMScheduler", {"trained_betas": [0.001 * (i + 1) for i in range(40)]}),
    "ddim": ("DDIMScheduler", {}),
    "ddim clipped narrowly": ("DDIMScheduler", {"clip_sample_range": 0.2}),
    "ddim not clipped": ("DDIMScheduler", {"clip_sample": False}),
    "ddim parallel": ("DDIMParallelScheduler", {"steps_offset": 1}),
    "ddim trailing": ("DDIMScheduler", {**TRAILING, "beta_schedule": "squaredcos_cap_v2"}),
    "ddim no signal": ("DDIMScheduler", {**TRAILING, "prediction_type": "sample", "rescale_betas_zero_snr": True}),
    "ddim quadratic": ("DDIMScheduler", {"beta_schedule": "scaled_linear"}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}),
    "euler": ("EulerDiscreteScheduler", {**LEADING}),
    "euler trailing": ("EulerDiscreteScheduler", {**TRAILING, "prediction_type": "v_prediction"}),
    "euler ancestral": ("EulerAncestralDiscreteScheduler", {**TRAILING}),
    "heun": ("HeunDiscreteScheduler", {**TRAILING}),
    "lms": ("LMSDiscreteScheduler", {**TRAILING}),
    "dpm": ("DPMSolverMultistepScheduler", {}),
    "dpm leading": ("DPMSolverMultistepScheduler", {**LEADING, "solver_type": "heun", "steps_offset": 1}),
    "dpm third": ("DPMSolverMultistepScheduler", {**TRAILING, "solver_order": 3}),
    "dpm sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "unipc third": ("UniPCMultistepScheduler", {**TRAILING, "solver_order": 3}),
    "singlestep": ("DPMSolverSinglestepScheduler", {}),
    "singlestep heun": ("DPMSolverSinglestepScheduler", {"solver_type": "heun"}),
    "singlestep third": ("DPMSolverSinglestepScheduler", {"solver_type": "heun", "solver_order": 3}),
    "deis": ("DEISMultistepScheduler", {}),
    "deis third, trailing": ("DEISMultistepScheduler", {**TRAILING, "solver_order": 3}),
    "deis v": ("DEISMultistepScheduler", {**LEADING, "prediction_type": "v_prediction"}),
    "pndm runge-kutta": ("PNDMScheduler", {"set_alpha_to_one": True}),
    "kdpm2": ("KDPM2DiscreteScheduler", {**LEADING}),
    "kdpm2 trailing": ("KDPM2DiscreteScheduler", {**TRAILING, "prediction_type": "v_prediction"}),
    "kdpm2 ancestral": ("KDPM2AncestralDiscreteScheduler", {**LEADING}),
    "kdpm2 ancestral trailing": ("KDPM2AncestralDiscreteScheduler", {**TRAILING}),
    "flow": ("FlowMatchEulerDiscreteScheduler", {}),
    "flow shifted": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    "flow heun": ("FlowMatchHeunDiscreteScheduler", {"shift": 2.0}),
    "edm": ("EDMEulerScheduler", {"sigma_max": 20.0}),
    "edm geometric": ("EDMEulerScheduler", {"sigma_schedule": "exponential", "sigma_data": 0.7}),
    "edm dpm": ("EDMDPMSolverMultistepScheduler", {}),
}


FAST = ("ddim", "flow shifted", "edm geometric")  # one of each kind of walk


@pytest.mark.parametrize("case", [c if c in FAST else pytest.param(c, marks=pytest.mark.slow) for c in EXACT])
def test_the_walk_is_theirs(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, options = EXACT[case]
    chain = CHAIN if "beta_start" in CLASSES[name].defaults else {}
    scheduler = getattr(diffusers, name)(**{**chain, **options})
    folder = folder_with(scheduler, tmp_path / "theirs")
    monkeypatch.setattr("sfumato.interop.walks.STEPS", STEPS)
    made = import_run(folder, tmp_path / "run")
    told = [n for n in made.found.notes if "standard deviation" not in n and "diffusers ends with the noise" not in n]
    assert not told, told
    steps = 40 if "DDPM" in name else STEPS
    wanted, found = theirs(folder, scheduler, made, steps, monkeypatch), ours(made)
    error = float((wanted - found).abs().max() / wanted.abs().max())
    rounding = 6e-3 if "clip" in case or "trailing" in case else 3e-4  # where a walk of 20 steps enlarges it
    assert error < rounding, (error, made.run.recipe.sample.grid, made.run.recipe.sample.sampler)


CHANGED: dict[str, tuple[dict[str, Any], str]] = {
    "PNDMScheduler": ({"prediction_type": "v_prediction"}, "set_alpha_to_one=false.*diffusers averages v"),
    "DEISMultistepScheduler": ({}, "diffusers ends with the noise of the chain's first level"),
    "DPMSolverSinglestepScheduler": ({"solver_order": 3}, "solver_type=midpoint: of a step's two stages"),
    "DDIMScheduler": ({**LINSPACE}, "timestep_spacing=linspace: diffusers steps by 20 of 1000"),
    "EulerDiscreteScheduler": ({}, "steps between two of the chain's are rounded"),
    "UniPCMultistepScheduler": ({"solver_type": "bh1"}, "solver_type=bh1"),
    "DDPMScheduler": ({"steps_offset": 1, "skip_prk_steps": True}, "steps_offset=1.*skip_prk_steps=true: a DDPMSched"),
    "EDMEulerScheduler": ({}, "standard deviation 80.0062"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_change_is_said(name: str) -> None:
    options, said = CHANGED[name]
    walk = read_scheduler({"_class_name": name, "_diffusers_version": "0.42.1", **options}, False)
    assert re.search(said, " ".join(walk.changed)), walk.changed


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "variance_type=.learned.": ("DDPMScheduler", {"variance_type": "learned"}),
    "variance_type=learned_range needs": ("DDPMScheduler", {"variance_type": "learned_range"}),
    "thresholding=true": ("DDIMScheduler", {"thresholding": True}),
    "beta_schedule=.laplace.": ("DDPMScheduler", {"beta_schedule": "laplace"}),
    "ends without signal": ("DDIMScheduler", {"rescale_betas_zero_snr": True}),
    "trained_betas must be 1000 numbers": ("DDIMScheduler", {"trained_betas": [0.1, 0.2]}),
    "use_karras_sigmas=true": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "final_sigmas_type=.sigma_min.": ("EDMEulerScheduler", {"final_sigmas_type": "sigma_min"}),
    "prediction_type=.v_prediction.": ("EDMEulerScheduler", {"prediction_type": "v_prediction"}),
    "use_dynamic_shifting=true": ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}),
    "stochastic_sampling=true": ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    "lambda_min_clipped=-5.1": ("DPMSolverMultistepScheduler", {"lambda_min_clipped": -5.1}),
    "brand_new=3 is not known": ("DDIMScheduler", {"brand_new": 3}),
    "timestep_spacing=.upside.": ("DDIMScheduler", {"timestep_spacing": "upside"}),
    "leaves its chain": ("DDIMScheduler", {"steps_offset": 400}),
    "clip_sample=.yes. is not valid": ("DDIMScheduler", {"clip_sample": "yes"}),
    "beta_end=null is not valid": ("DDIMScheduler", {"beta_end": None}),
    "1 to 100,000 steps": ("DDIMScheduler", {"num_train_timesteps": 10**9}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_value_without_a_recipe_is_refused_by_name(reason: str) -> None:
    name, options = REFUSED[reason]
    with pytest.raises(ForeignError, match=reason):
        read_scheduler({"_class_name": name, **options}, False)


@pytest.mark.parametrize("name", [n for n in CLASSES if CLASSES[n].read])
def test_every_key_that_is_not_read_is_refused_when_it_is_set(name: str) -> None:
    """No key of a class may be dropped: read, without effect, or refused."""
    for key, default in CLASSES[name].defaults.items():
        if key in CLASSES[name].taken or key in IDLE:
            continue
        other = (not default) if isinstance(default, bool) else "x" if isinstance(default, str) else 0.5
        other = [1] if isinstance(default, list) else other
        with pytest.raises(ForeignError, match=key):
            read_scheduler({"_class_name": name, key: other}, False)


def test_a_class_that_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = folder_with(diffusers.CMStochasticIterativeScheduler(), tmp_path / "theirs")
    with pytest.raises(ForeignError, match="CMStochasticIterativeScheduler has no recipe here"):
        import_run(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_says_what_was_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sfumato.cli import main

    folder = folder_with(diffusers.PNDMScheduler(), tmp_path / "theirs")
    assert main(["import", str(folder), "--out", str(tmp_path / "run")]) == 0
    assert "note: changed: set_alpha_to_one=false" in capsys.readouterr().out
