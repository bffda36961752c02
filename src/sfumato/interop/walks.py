"""What the configurations of diffusers' schedulers mean in our parts: a reader for each kind of walk.

A reader takes the values of a configuration and of `ARGUMENTS`, complete and of the right types, and
whether the network learns a variance; it returns a `Walk`. `interop.schedulers` says which class is read by which.

    a discrete chain        DDPM, DDIM, PNDM, and the solvers that work in sigma on the chain's own levels
    flow matching           x = (1 - t) x0 + t n, the network told T t
    EDM                     sigma from sigma_max to sigma_min, the network told ln(sigma) / 4

References:
    Lin, Liu, Li, Yang. Common Diffusion Noise Schedules and Sample Steps Are Flawed. 2024, algorithm 1 (chains that end
    without signal). https://arxiv.org/abs/2305.08891
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sfumato.interop.spacings import SPACINGS, grid_of, rounded, visited
from sfumato.interop.tensors import ForeignError
from sfumato.runs.recipe import Part, Sample, part

Values = dict[str, Any]
STEPS = 50  # of a pipeline that is not told
FEW = 15  # steps of a walk from which on diffusers' solvers keep their order to the end
CALL = "_sfumato_call"  # key of model_index.json under which an export keeps the arguments of the pipeline's call
ARGUMENTS: dict[str, Any] = {"num_inference_steps": 0, "eta": 0.0, "use_clipped_model_output": False}  # and defaults
TARGETS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
VARIANCES = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "fixed_large_log": "large"}


@dataclass(frozen=True)
class Walk:
    """Say what a scheduler's configuration is in our parts.

    Attributes:
        fields: Fields of a recipe: schedule, target, and what else differs from a discrete chain's.
        sample: How images are made.
        changed: What differs from diffusers, one line each; () if the walk is the same.
    """

    fields: Mapping[str, Any]
    sample: Sample
    changed: tuple[str, ...] = ()


def shown(value: Any) -> str:
    """Return a value as the file has it, cut to a line."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _one_of(values: Values, key: str, choices: Mapping[str, Any] | tuple[str, ...]) -> Any:
    """Return what a value of a few stands for, or refuse it."""
    value = values[key]
    if value not in choices:
        raise ForeignError(f"A scheduler with {key}={shown(value)} has no recipe here; {', '.join(choices)} have.")
    return choices[value] if isinstance(choices, Mapping) else value


def _schedule(values: Values, terminal: float = 0.0) -> Part:
    """Return the chain of a configuration.

    Arguments:
        values: Of the configuration.
        terminal: Signal abar that a schedule rescaled to none keeps at its last step.
    """
    steps, kind = values["num_train_timesteps"], values["beta_schedule"]
    given = values["trained_betas"]
    zero = values.get("rescale_betas_zero_snr", False)
    scale = steps / 1000  # our ends are those of a chain of 1000 steps
    low, high = values["beta_start"], values["beta_end"]
    named = {
        "linear": part("schedule", "linear", steps=steps, beta_min=low * scale, beta_max=high * scale),
        "scaled_linear": part("schedule", "quadratic", steps=steps, beta_min=low * scale, beta_max=high * scale),
        "squaredcos_cap_v2": part("schedule", "cosine", steps=steps),
        "sigmoid": part("schedule", "betas"),
    }
    if given is not None:
        fits = isinstance(given, list) and all(type(b) in (int, float) and 0 < b <= 1 for b in given)
        if not fits or len(given) != steps:
            raise ForeignError(f"trained_betas must be {steps} numbers in (0, 1], as many as num_train_timesteps.")
        chain = part("schedule", "betas", values=tuple(map(float, given)))
    else:
        chain = _one_of(values, "beta_schedule", named)
        if kind == "sigmoid":
            logistic = torch.linspace(-6, 6, steps, dtype=torch.float64).sigmoid()
            chain = part("schedule", "betas", values=tuple((logistic * (high - low) + low).tolist()))
    return part("schedule", "betas", values=_without_signal(chain, terminal)) if zero else chain


def _without_signal(chain: Part, terminal: float) -> tuple[float, ...]:
    """Return the betas of a chain with its alphas shifted and scaled so that the last is 0."""
    try:
        alpha: Tensor = chain.entry()(**chain.options).levels.alpha[1:]
    except ValueError as error:
        raise ForeignError(f"The scheduler's chain cannot be made: {error}") from None
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    abar = torch.cat((torch.ones(1, dtype=torch.float64), alpha**2))
    if not terminal < abar[-2]:
        raise ForeignError(
            f"A scheduler with rescale_betas_zero_snr=true has no recipe here for this chain: diffusers keeps a signal "
            f"of {terminal:.2g} at its last step, more than the {float(abar[-2]):.2g} of the step before."
        )
    abar[-1] = terminal
    return tuple((1 - abar[1:] / abar[:-1]).tolist())


def _chain(values: Values, targets: tuple[str, ...] = tuple(TARGETS), terminal: float = 0.0) -> dict[str, Any]:
    """Return the fields of a discrete chain: schedule and target."""
    target = TARGETS[_one_of(values, "prediction_type", targets)]
    schedule = _schedule(values, terminal)
    if target == "eps" and schedule.options.get("values", (0.0,))[-1] == 1:
        raise ForeignError(
            "A scheduler whose chain ends without signal (rescale_betas_zero_snr=true, or a last beta of 1) and whose "
            "prediction_type is epsilon has no recipe here: the noise alone says nothing about the image."
        )
    return {"schedule": schedule, "target": part("target", target)}


def _spaced(values: Values, *, but_cleanest: bool = False, whole: bool = True) -> tuple[list[int], list[str]]:
    """Return the steps that a walk visits and what was changed in them."""
    total = values["num_train_timesteps"]
    count = values["num_inference_steps"] or min(STEPS, total - but_cleanest)
    spacing = _one_of(values, "timestep_spacing", SPACINGS)
    steps = visited(spacing, total, count, values["steps_offset"], but_cleanest=but_cleanest)
    if not steps or min(steps) < 0 or max(steps) >= total or len(set(rounded(steps))) < len(steps):
        raise ForeignError(
            f"A scheduler with steps_offset={values['steps_offset']} and timestep_spacing={spacing} leaves its chain "
            f"of {total} steps when it takes {count} of them."
        )
    between = not whole and any(t != round(t) for t in steps)
    changed = ["timestep_spacing=linspace: steps between two of the chain's are rounded"] if between else []
    return rounded(steps), changed


def _strides(values: Values, steps: list[int]) -> list[str]:
    """Return what is changed in schedulers that step by T // N from wherever they are (DDIM, PNDM)."""
    total, stride = values["num_train_timesteps"], values["num_train_timesteps"] // len(steps)
    uneven = any(a - b != stride for a, b in zip(steps, steps[1:])) or steps[-1] - stride >= 0
    changed = []
    if uneven:
        spacing = values["timestep_spacing"]
        changed.append(
            f"timestep_spacing={spacing}: diffusers steps by {stride} of {total} and then asks at the next step of its "
            "list; here every step ends where the next begins"
        )
    if not values["set_alpha_to_one"]:
        changed.append(
            "set_alpha_to_one=false: diffusers ends at the first level of the chain, here the image is clean"
        )
    return changed


def _clip(values: Values) -> bool | float:
    limit = float(values["clip_sample_range"])
    if values["clip_sample"] and not limit > 0:
        raise ForeignError(f"A scheduler with clip_sample_range={limit:g} has no recipe here; it is positive.")
    return (True if limit == 1 else limit) if values["clip_sample"] else False


def _unread(learned: bool) -> list[str]:
    return ["the variance that the network learns is not used by this sampler"] if learned else []


def _variance(values: Values, learned: bool) -> list[str]:
    """Return what is changed where a solver's variance_type says otherwise than the network's channels."""
    said = values["variance_type"]
    if said not in (None, "learned", "learned_range"):
        raise ForeignError(
            f"A scheduler with variance_type={shown(said)} is not valid; null, learned, learned_range are."
        )
    wrong = f"variance_type={shown(said)}: the network has {'' if learned else 'no '}outputs for a variance"
    return [wrong] if bool(said) != learned else []


def ddpm(values: Values, learned: bool) -> Walk:
    """Read DDPM: the variance of a step decides the sampler; all steps are taken."""
    fields, changed = _chain(values), []
    kind = _one_of(values, "variance_type", (*VARIANCES, "learned_range"))
    if learned and kind != "learned_range":
        changed.append(f"variance_type={kind}: the network learns its variance, which is used (learned_range)")
    elif not learned and kind == "learned_range":
        raise ForeignError("A scheduler with variance_type=learned_range needs a network with twice the channels out.")
    elif kind == "fixed_large_log":
        changed.append("variance_type=fixed_large_log: the large variance; diffusers takes the root of a logarithm")
    count = values["num_inference_steps"]
    grid = grid_of(_spaced(values)[0], values["num_train_timesteps"]) if count else part("grid", "full")
    for key, default in (("timestep_spacing", "leading"), ("steps_offset", 0)):
        if values[key] != default and not count:
            changed.append(f"{key}={values[key]}: of no effect where all steps are taken, as here")
    variance = "learned" if learned else VARIANCES[kind]
    if count and variance != "small" and _spaced(values)[0][-1] > 0:
        changed.append("variance_type: diffusers adds noise to the image itself where step 0 is not visited, here none")
    sampler = part("sampler", "ancestral", variance=variance, clip=_clip(values))
    return Walk(fields, Sample(sampler, grid), tuple(changed))


def ddim(values: Values, learned: bool) -> Walk:
    """Read DDIM, whose noise is the network's own while its x0 is clipped."""
    clip = _clip(values)
    steps, _ = _spaced(values)
    options: dict[str, Any] = {"eta": values["eta"]} if values["eta"] else {}
    if clip:
        options |= {"clip": clip} | ({} if values["use_clipped_model_output"] else {"clip_noise": False})
    sample = Sample(part("sampler", "ddim", **options), grid_of(steps, values["num_train_timesteps"]))
    return Walk(_chain(values), sample, (*_strides(values, steps), *_unread(learned)))


def pndm(values: Values, learned: bool) -> Walk:
    """Read PNDM: PLMS, begun by three steps of Runge-Kutta unless they are skipped."""
    steps, _ = _spaced(values)
    total, changed = values["num_train_timesteps"], _strides(values, steps)
    warmup = "heun" if values["skip_prk_steps"] else "runge-kutta"
    if warmup == "runge-kutta":
        if len(steps) < 4:
            raise ForeignError("A PNDMScheduler with skip_prk_steps=false needs a chain of at least 4 steps.")
        half = total // len(steps) // 2
        middles = [end + half for end in steps[1:4]]
        if any(start - half != middle for start, middle in zip(steps, middles)):
            changed.append("skip_prk_steps=false: diffusers' middle of a step is half a step off, here it is one level")
        steps = sorted({*steps, *middles}, reverse=True)
    if values["prediction_type"] == "v_prediction":
        changed.append("prediction_type=v_prediction: diffusers averages v over the steps, here the noise is averaged")
    sample = Sample(part("sampler", "pndm", order=4, warmup=warmup), grid_of(steps, total))
    return Walk(_chain(values, ("epsilon", "v_prediction")), sample, (*changed, *_unread(learned)))


def deis(values: Values, learned: bool) -> Walk:
    """Read DEIS in the logarithm of rho, which diffusers walks to the first level of the chain."""
    _one_of(values, "algorithm_type", ("deis",))
    _one_of(values, "solver_type", ("logrho",))
    order = _order(values, 3)
    steps, changed = _spaced(values, but_cleanest=True)
    few = len(steps) < FEW
    if steps[-1] > 0:
        steps.append(0)
    changed.append("diffusers ends with the noise of the chain's first level, here one call more ends at a clean image")
    if values["lower_order_final"] and few and order > 1:
        changed.append(f"lower_order_final=true: diffusers lowers the order of the last of fewer than {FEW} steps")
    sample = Sample(part("sampler", "deis", order=order), grid_of(steps, values["num_train_timesteps"]))
    return Walk(_chain(values), sample, (*changed, *_unread(learned)))


def singlestep(values: Values, learned: bool) -> Walk:
    """Read DPM-Solver++ in single steps, whose levels are spaced evenly to both ends of the chain."""
    _one_of(values, "algorithm_type", ("dpmsolver++",))
    order, kind = _order(values, 3), _one_of(values, "solver_type", {"midpoint": "midpoint", "heun": "exact"})
    options = {"order": order, "moments": kind} | ({"parabola": True} if order == 3 and kind == "exact" else {})
    even = {"timestep_spacing": "linspace", "steps_offset": 0}
    walk = walked(part("sampler", "singlestep", **options), but_cleanest=True)({**values, **even}, learned)
    told = "solver_type=midpoint: of a step's two stages, diffusers finds the second by a rougher formula"
    rougher = [told] if order == 3 and kind == "midpoint" else []
    return replace(walk, changed=(*walk.changed, *rougher, *_variance(values, learned)))


def between(eta: float) -> Callable[[Values, bool], Walk]:
    """Return the reader of k-diffusion's DPM2, which asks the network between two steps of its chain."""
    options = {"predict": "noise", "moments": "midpoint", "stages": "between", "gauge": "vp"}
    sampler = part("sampler", "singlestep", **options, **({"eta": eta} if eta else {}))

    def read(values: Values, learned: bool) -> Walk:
        walk = walked(sampler, "epsilon", "v_prediction")(values, learned)
        return replace(walk, fields={**walk.fields, "c_noise": part("conditioning", "index-between")})

    return read


def walked(sampler: Part, *targets: str, but_cleanest: bool = False) -> Callable[[Values, bool], Walk]:
    """Return the reader of a scheduler that walks the chain's own levels as one of our samplers does."""

    def read(values: Values, learned: bool) -> Walk:
        tiny = 2.0**-24  # what these keep of the signal where the chain is rescaled to none
        steps, changed = _spaced(values, but_cleanest=but_cleanest, whole=but_cleanest)
        sample = Sample(sampler, grid_of(steps, values["num_train_timesteps"]))
        return Walk(_chain(values, targets or tuple(TARGETS), tiny), sample, (*changed, *_unread(learned)))

    return read


def dpm(values: Values, learned: bool) -> Walk:
    """Read DPM-Solver++ and its SDE, multistep."""
    kinds = {"dpmsolver++": "dpmpp", "sde-dpmsolver++": "dpmpp-sde"}
    name = _one_of(values, "algorithm_type", kinds)
    few = len(_spaced(values, but_cleanest=True)[0]) < FEW
    lowered = {"lower_final": True} if few and values["lower_order_final"] and values["solver_order"] > 2 else {}
    walk = walked(part("sampler", name, **_solver(values), **lowered), but_cleanest=True)(values, learned)
    return replace(walk, changed=(*walk.changed, *_variance(values, learned)))


def _order(values: Values, highest: int) -> int:
    """Return the order of a solver, or refuse it."""
    order: int = values["solver_order"]
    if not 1 <= order <= highest:
        raise ForeignError(f"A scheduler with solver_order={order} has no recipe here; 1 to {highest} have.")
    return order


def _solver(values: Values) -> dict[str, Any]:
    """Return the options of a multistep DPM-Solver++."""
    order = _order(values, 3)
    moments = _one_of(values, "solver_type", {"midpoint": "midpoint", "heun": "exact"})
    options: dict[str, Any] = {"order": order, "moments": moments}
    return options | ({"published": True} if order == 3 else {})


def unipc(values: Values, learned: bool) -> Walk:
    """Read UniPC."""
    variant = _one_of(values, "solver_type", ("bh1", "bh2"))
    sampler = part("sampler", "unipc", order=values["solver_order"], variant=variant, lower_final=True)
    walk = walked(sampler, but_cleanest=True)(values, learned)
    changed = list(walk.changed)
    if variant == "bh1":
        changed.append("solver_type=bh1: diffusers' last step is not a number, here it ends at the clean image")
    if not values["lower_order_final"]:
        changed.append("lower_order_final=false: the order of the last steps is lowered to the steps left")
    return replace(walk, changed=tuple(changed))


def flow(sampler: str) -> Callable[[Values, bool], Walk]:
    """Return the reader of a flow-matching scheduler: the straight line, told t from 0 to T."""

    def read(values: Values, learned: bool) -> Walk:
        total, shift = values["num_train_timesteps"], float(values["shift"])
        if not shift > 0:
            raise ForeignError(f"A flow-matching scheduler with shift={shift:g} has no recipe here; it is positive.")
        first = shift / total / (1 + (shift - 1) / total)  # diffusers shifts the ends of its range, and then the times
        grid = part(
            "grid",
            "flow",
            steps=values["num_inference_steps"] or min(STEPS, total),
            t_min=first,
            **({} if shift == 1 else {"shift": shift}),
        )
        fields = {
            "schedule": part("schedule", "flow"),
            "target": part("target", "flow"),
            "c_noise": part("conditioning", "flow-time", scale=float(total)),
        }
        return Walk(fields, Sample(part("sampler", sampler, gauge="flow"), grid), tuple(_unread(learned)))

    return read


def edm(values: Values, learned: bool) -> Walk:
    """Read EDM's preconditioning, walked by Euler's method or, where there is an order, by DPM-Solver++."""
    sampler = part("sampler", "euler", gauge="ve")
    if "solver_order" in values:
        _one_of(values, "algorithm_type", ("dpmsolver++",))
        sampler = part("sampler", "dpmpp", **_solver(values))
    _one_of(values, "prediction_type", ("epsilon",))
    low, high, data = (float(values[key]) for key in ("sigma_min", "sigma_max", "sigma_data"))
    if not (0 < low < high and data > 0):
        raise ForeignError(f"EDM's noise needs 0 < sigma_min < sigma_max, sigma_data > 0; got {low}, {high}, {data}.")
    ends = {"sigma_min": low, "sigma_max": high}
    rho = float(values["rho"])
    steps = values["num_inference_steps"] or STEPS
    grids = {
        "karras": part("grid", "karras", steps=steps, **ends, rho=rho),
        "exponential": part("grid", "logsnr", steps=steps, **ends),
    }
    fields = {
        "schedule": part("schedule", "edm", **ends, rho=rho),
        "target": part("target", "edm"),
        "c_noise": part("conditioning", "quarter-log-nsr"),
        "c_in": "unit-variance",
        "draw": part("draw", "lognormal"),
        "weighting": part("weighting", "edm"),
        "sigma_data": data,
    }
    start = math.hypot(high, 1)
    changed = [f"diffusers starts from noise of standard deviation {start:.6g}, here of sigma_max={high:g}"]
    return Walk(fields, Sample(sampler, _one_of(values, "sigma_schedule", grids)), (*changed, *_unread(learned)))
