"""Every scheduler class of diffusers, and what becomes of its configuration on import: this table has the last word.

A scheduler's configuration decides what the network beside it means (chain, target, how it is told its level) and how
it is sampled. A class of `CLASSES` is read by a function, exactly or with changes that are said, or refused with the
reason. Of its keys some are read, some have no effect, and every other is refused when its value is not the default.
A key of another scheduler has no effect in diffusers either, and is said; a key of none is refused.

The number of steps is not in a configuration: pipelines default to 50 (DDPM's to all), and so does an import.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sfumato.interop.tensors import ForeignError
from sfumato.interop.walks import (
    ARGUMENTS,
    CALL,
    Values,
    Walk,
    between,
    ddim,
    ddpm,
    deis,
    dpm,
    edm,
    flow,
    pndm,
    shown,
    singlestep,
    unipc,
    walked,
)
from sfumato.runs.recipe import part

MOST_STEPS = 100_000


@dataclass(frozen=True)
class Scheduler:
    """Say what becomes of one class.

    Attributes:
        read: (its values, whether the network learns a variance) -> Walk; None if the class is refused.
        why: Reason of a refusal, the end of a sentence.
        defaults: Keys of its configuration and the library's values.
        taken: Keys that `read` looks at.
    """

    read: Callable[[Values, bool], Walk] | None = None
    why: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    taken: tuple[str, ...] = ()


def read_scheduler(config: Mapping[str, Any], learned: bool, call: Mapping[str, Any] | None = None) -> Walk:
    """Return what a scheduler's configuration is in our parts; without a class it is taken for DDPM's.

    Arguments:
        config: Content of scheduler_config.json.
        learned: Whether the network has outputs for a variance.
        call: Arguments of the pipeline's call (`ARGUMENTS`), where an export has kept them.

    Raises:
        ForeignError: For a class or a value that no recipe has; the message names it.
    """
    name = config.get("_class_name", "DDPMScheduler")
    known = CLASSES.get(name) if isinstance(name, str) else None
    if known is None:
        raise ForeignError(f"The scheduler's class is {name!r}, which is none that is known; no recipe can be named.")
    if known.read is None:
        raise ForeignError(f"A {name} has no recipe here: {known.why}.")
    values, ignored = {**known.defaults, **ARGUMENTS}, []
    if call is not None and not isinstance(call, Mapping):
        raise ForeignError(f"{CALL} of model_index.json is {shown(call)}; it names the arguments of a call.")
    for key, value in (call or {}).items():
        if key not in ARGUMENTS:
            raise ForeignError(f"{CALL} of model_index.json has {key}={shown(value)}, which is no argument of a call.")
        values[key] = _checked(name, key, value, ARGUMENTS[key])
    for key, value in config.items():
        if key.startswith("_"):
            continue
        if key in known.defaults:
            values[key] = _checked(name, key, value, known.defaults[key])
        elif any(key in other.defaults for other in CLASSES.values()):
            ignored.append(f"{key}={shown(value)}: a {name} does not read it")
        else:
            raise ForeignError(f"A {name} with {key}={shown(value)} is not known; remove the key if it has no effect.")
    wrong = [
        f"{key}={shown(values[key])}"
        for key, default in known.defaults.items()
        if key not in known.taken and key not in IDLE and values[key] != default
    ]
    if wrong:
        raise ForeignError(f"A {name} with {', '.join(wrong)} has no recipe here.")
    walk = known.read(values, learned)
    return replace(walk, changed=(*walk.changed, *ignored))


def _checked(name: str, key: str, value: Any, default: Any) -> Any:
    """Return a value of the type that its default has; null is what diffusers makes of it."""
    if value == default and type(value) is type(default):
        return value
    if value is None and (isinstance(default, bool) or key == "variance_type"):
        return False if isinstance(default, bool) else default
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    fits = {
        bool: isinstance(value, bool),
        int: number and float(value).is_integer(),
        float: number,
        str: isinstance(value, str),
        list: isinstance(value, list),
    }
    if key.startswith("num_") and not (number and 1 <= value <= MOST_STEPS):
        raise ForeignError(f"A {name} with {key}={shown(value)} has no recipe here; 1 to {MOST_STEPS:,} steps have.")
    if default is not None and not fits[type(default)]:
        raise ForeignError(f"A {name} with {key}={shown(value)} is not valid: it is like {shown(default)}.")
    return int(value) if isinstance(default, int) and not isinstance(default, bool) else value


CHAIN = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
CHAIN |= {"trained_betas": None, "prediction_type": "epsilon"}
LATENT = CHAIN | {"beta_start": 0.00085, "beta_end": 0.012}
DYNAMIC = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
CLIP = {"clip_sample": True, "clip_sample_range": 1.0}
EVEN = {"timestep_spacing": "linspace", "steps_offset": 0}
LEADING = {"timestep_spacing": "leading", "steps_offset": 0}
ZERO = {"rescale_betas_zero_snr": False}
SIGMAS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
FLOWING = {"use_flow_sigmas": False, "flow_shift": 1.0}
SHIFTING = {"use_dynamic_shifting": False, "time_shift_type": "exponential"}
NOISES = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "sigma_schedule": "karras"}
NOISES |= {"num_train_timesteps": 1000, "prediction_type": "epsilon", "rho": 7.0, "final_sigmas_type": "zero"}
SOLVER = {"solver_order": 2, "algorithm_type": "dpmsolver++", "solver_type": "midpoint", "lower_order_final": True}
SOLVER |= {"euler_at_final": False, "final_sigmas_type": "zero"}
SOLVER_OF_STEPS = {k: v for k, v in SOLVER.items() if k != "euler_at_final"} | {"lower_order_final": False}

IDLE = {  # without effect: they qualify a key that is refused, the step to the clean level, or short walks
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "flow_shift",
    "time_shift_type",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "euler_at_final",
    "lower_order_final",
}

DDPM = CHAIN | {"variance_type": "fixed_small"} | CLIP | DYNAMIC | LEADING | ZERO
DDIM = CHAIN | CLIP | {"set_alpha_to_one": True} | DYNAMIC | LEADING | ZERO
READ = (*CHAIN, *LEADING)  # keys that every walk of a chain reads
OF_DDPM = Scheduler(ddpm, "", DDPM, (*READ, *CLIP, *ZERO, "variance_type"))
OF_DDIM = Scheduler(ddim, "", DDIM, (*READ, *CLIP, *ZERO, "set_alpha_to_one"))


CLASSES: dict[str, Scheduler] = {
    "DDPMScheduler": OF_DDPM,
    "DDPMParallelScheduler": OF_DDPM,
    "DDIMScheduler": OF_DDIM,
    "DDIMParallelScheduler": OF_DDIM,
    "PNDMScheduler": Scheduler(
        pndm,
        "",
        CHAIN | {"skip_prk_steps": False, "set_alpha_to_one": False} | LEADING,
        (*READ, "skip_prk_steps", "set_alpha_to_one"),
    ),
    "EulerDiscreteScheduler": Scheduler(
        walked(part("sampler", "euler", gauge="ve")),
        "",
        CHAIN | {"interpolation_type": "linear"} | SIGMAS | {"sigma_min": None, "sigma_max": None} | EVEN
        | {"timestep_type": "discrete"} | ZERO | {"final_sigmas_type": "zero"},
        (*READ, *ZERO),
    ),
    "EulerAncestralDiscreteScheduler": Scheduler(
        walked(part("sampler", "ancestral", variance="small"), "epsilon", "v_prediction"),
        "",
        CHAIN | EVEN | ZERO,
        (*READ, *ZERO),
    ),
    "HeunDiscreteScheduler": Scheduler(
        walked(part("sampler", "heun", gauge="ve"), "epsilon", "v_prediction"),
        "",
        LATENT | SIGMAS | CLIP | {"clip_sample": False} | EVEN,
        (*READ, "clip_sample_range"),
    ),
    "LMSDiscreteScheduler": Scheduler(
        walked(part("sampler", "adams", order=4, gauge="ve")), "", CHAIN | SIGMAS | EVEN, READ
    ),
    "DPMSolverMultistepScheduler": Scheduler(
        dpm,
        "",
        CHAIN | DYNAMIC | SOLVER | SIGMAS | {"use_lu_lambdas": False} | FLOWING
        | {"lambda_min_clipped": -math.inf, "variance_type": None} | EVEN | ZERO | SHIFTING,
        (*READ, *ZERO, "solver_order", "algorithm_type", "solver_type", "variance_type", "lower_order_final"),
    ),
    "DPMSolverSinglestepScheduler": Scheduler(
        singlestep,
        "",
        CHAIN | DYNAMIC | SOLVER_OF_STEPS | SIGMAS | FLOWING | {"lambda_min_clipped": -math.inf, "variance_type": None}
        | SHIFTING,
        (*CHAIN, "solver_order", "algorithm_type", "solver_type", "variance_type"),
    ),
    "DEISMultistepScheduler": Scheduler(
        deis,
        "",
        CHAIN | {"solver_order": 2, "algorithm_type": "deis", "solver_type": "logrho", "lower_order_final": True}
        | DYNAMIC | SIGMAS | FLOWING | EVEN | SHIFTING,
        (*READ, "solver_order", "algorithm_type", "solver_type", "lower_order_final"),
    ),
    "KDPM2DiscreteScheduler": Scheduler(between(0.0), "", LATENT | SIGMAS | EVEN, READ),
    "KDPM2AncestralDiscreteScheduler": Scheduler(between(1.0), "", LATENT | SIGMAS | EVEN, READ),
    "UniPCMultistepScheduler": Scheduler(
        unipc,
        "",
        CHAIN | {"solver_order": 2, "predict_x0": True, "solver_type": "bh2", "lower_order_final": True}
        | {"disable_corrector": [], "solver_p": None, "final_sigmas_type": "zero"} | DYNAMIC | SIGMAS | FLOWING | EVEN
        | ZERO | SHIFTING | {"sigma_min": None, "sigma_max": None, "shift_terminal": None},
        (*READ, *ZERO, "solver_order", "solver_type", "lower_order_final"),
    ),
    "FlowMatchEulerDiscreteScheduler": Scheduler(
        flow("euler"),
        "",
        {"num_train_timesteps": 1000, "shift": 1.0, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256}
        | {"max_image_seq_len": 4096, "invert_sigmas": False, "shift_terminal": None, "stochastic_sampling": False}
        | SIGMAS | SHIFTING,
        ("num_train_timesteps", "shift"),
    ),
    "FlowMatchHeunDiscreteScheduler": Scheduler(
        flow("heun"), "", {"num_train_timesteps": 1000, "shift": 1.0}, ("num_train_timesteps", "shift")
    ),
    "EDMEulerScheduler": Scheduler(edm, "", NOISES, tuple(k for k in NOISES if k != "final_sigmas_type")),
    "EDMDPMSolverMultistepScheduler": Scheduler(
        edm, "", NOISES | SOLVER | DYNAMIC,
        (*(k for k in NOISES if k != "final_sigmas_type"), "solver_order", "algorithm_type", "solver_type"),
    ),
}  # fmt: skip
# what is known to have no recipe here: why -> classes, without the word Scheduler that ends their names
WITHOUT = {
    "its network gives the score itself and is told sigma: no target here": ("ScoreSdeVe",),
    "its network is told a time that is no step; import score SDE's own file": ("ScoreSdeVp",),
    "its network is told sigma in a scale of its own; import EDM's own file": ("KarrasVe",),
    "its consistency model is exact at sigma_min instead of at the clean image, a target that is not here": (
        "CMStochasticIterative",
    ),
    "it samples a distilled model, which is asked in another way": ("SCM", "LCM", "TCD", "FlowMatchLCM"),
    "it decodes latents": ("ConsistencyDecoder",),
    "SA-Solver is not among the samplers": ("SASolver",),
    "it asks the network between the steps of its chain": ("DPMSolverSDE",),
    "its network is told the angle of a schedule of its own": ("CosineDPMSolverMultistep",),
    "its chain is a sine of its own whose times are no steps": ("IPNDM",),
    "it walks from images to noise; here that is `sfumato encode`": ("DDIMInverse", "DPMSolverMultistepInverse"),
    "it paints in given pixels, which is not built": ("RePaint",),
    "its network is told two times, the start and the end of a step": ("FlowMapEulerDiscrete",),
    "it belongs to a model that is no denoiser of pixels": (
        *("UnCLIP", "CogVideoXDDIM", "CogVideoXDPM", "DDPMWuerstchen", "LTXEulerAncestralRF", "Helios", "HeliosDMD"),
        *("MiniMaxH3", "Piflow", "RFD4Proteina", "Amused", "BlockRefinement", "DiscreteDDIM", "EntropyBound"),
        "VQDiffusion",
    ),
}
CLASSES |= {f"{name}Scheduler": Scheduler(why=why) for why, names in WITHOUT.items() for name in names}
