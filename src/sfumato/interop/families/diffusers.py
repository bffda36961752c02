"""diffusers: a folder with the configuration and weights of a UNet2DModel, alone or in a pipeline with its scheduler.

Two of our networks cover it: `ddpm`, where the configuration is that of DDPM (corner padding, one head, epsilon 1e-6),
and `adm` with plain convolutions otherwise. A configuration with anything else in it is refused by name. The scheduler
gives the chain, the target and the clipping; without one the chain of DDPM is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato.interop.families._chain import chain_recipe
from sfumato.interop.foreign import Foreign, Imported, numbered
from sfumato.interop.keys import rename_diffusers
from sfumato.interop.tensors import ForeignError
from sfumato.recipes._paper import ancestral
from sfumato.runs.recipe import Part, Sample, Shape, part

BLOCKS = {"DownBlock2D": False, "AttnDownBlock2D": True, "UpBlock2D": False, "AttnUpBlock2D": True}
FIXED: dict[str, tuple[Any, Any]] = {  # key -> (the library's default, the only value that we have)
    "act_fn": ("silu", "silu"),
    "time_embedding_type": ("positional", "positional"),
    "mid_block_scale_factor": (1, 1),
    "downsample_type": ("conv", "conv"),
    "upsample_type": ("conv", "conv"),
    "center_input_sample": (False, False),
    "add_attention": (True, True),
    "class_embed_type": (None, None),
    "mid_block_type": ("UNetMidBlock2D", "UNetMidBlock2D"),
    "time_embedding_dim": (None, None),
}
TARGETS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def diffusers(found: Foreign) -> Imported | None:
    """A folder of diffusers with a UNet2DModel, alone or in a pipeline.

    Arguments:
        found: The opened checkpoint.

    Raises:
        ForeignError: For a configuration that none of our networks has.
    """
    if "unet" not in found.configs:
        return None
    config = found.configs["unet"]
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise ForeignError(f"{found.path} holds a {config['_class_name']}; only UNet2DModel is a pixel-space U-Net.")
    network, shape, variance = read_unet(config)
    data, line = found.data(shape)
    assumed = [line]
    scheduler = found.configs.get("scheduler")
    if scheduler is None:
        assumed.insert(0, "schedule=linear schedule.steps=1000: there is no scheduler's configuration")
    schedule, target, sample = read_scheduler(scheduler or {}, variance)
    recipe = chain_recipe(
        "imported-diffusers", data, shape, network, schedule, target=target, variance=variance, sample=sample
    )
    tensors = {_current(name): tensor for name, tensor in found.tensors.items()}
    return Imported("diffusers", recipe, tensors, rename_diffusers, tuple(assumed))


def _current(name: str) -> str:
    """Return an attention's name as diffusers writes it now."""
    for old, new in OLD_ATTENTION.items():
        name = name.replace(old, new) if ".attentions." in name else name
    return name


def read_unet(config: Mapping[str, Any]) -> tuple[Part, Shape, str]:
    """Return (network, image shape, learned variance) of a UNet2DModel's configuration."""
    for key, (default, ours) in FIXED.items():
        if config.get(key, default) != ours:
            raise ForeignError(f"A UNet2DModel with {key}={config[key]!r} has no network here; only {ours!r} has.")
    downs, ups = list(config["down_block_types"]), list(config["up_block_types"])
    if strange := sorted({*downs, *ups} - set(BLOCKS)):
        raise ForeignError(f"A UNet2DModel with blocks {', '.join(strange)} has no network here.")
    attended = [BLOCKS[kind] for kind in downs]
    if attended != [BLOCKS[kind] for kind in reversed(ups)]:
        raise ForeignError("A UNet2DModel whose ways down and up attend at different levels has no network here.")
    widths = list(config["block_out_channels"])
    size = config.get("sample_size")
    if not isinstance(size, int):
        raise ForeignError(f"A UNet2DModel needs one sample_size, the side of its images; got {size!r}.")
    channels, out = config.get("in_channels", 3), config.get("out_channels", 3)
    if out not in (channels, 2 * channels):
        raise ForeignError(f"A UNet2DModel from {channels} to {out} channels is no denoiser of images.")
    mult = tuple(w / widths[0] if w % widths[0] else w // widths[0] for w in widths)
    common: dict[str, Any] = {
        "width": widths[0],
        "mult": mult,
        "blocks": config.get("layers_per_block", 2),
        "attention": tuple(size >> i for i, here in enumerate(attended) if here),
        "dropout": float(config.get("dropout", 0.0)),
        "groups": config.get("norm_num_groups", 32),
    }
    head_width, shift = config.get("attention_head_dim", 8), config.get("freq_shift", 0)
    sines = not config.get("flip_sin_to_cos", True)
    corner, eps = config.get("downsample_padding", 1) == 0, config.get("norm_eps", 1e-5)
    adaptive = config.get("resnet_time_scale_shift", "default") == "scale_shift"
    groups = config.get("attn_norm_num_groups") or (None if adaptive else common["groups"])
    if groups != common["groups"]:  # diffusers then leaves the middle's attention without a normalisation
        raise ForeignError(f"A UNet2DModel with attn_norm_num_groups={groups} in its middle has no network here.")
    classes = config.get("num_class_embeds") or 0
    shape = Shape(channels, size, size, numbered(classes))
    variance = "range" if out == 2 * channels else "none"
    if corner and eps == 1e-6 and head_width is None and shift == 1 and sines and not adaptive:
        return part("network", "ddpm", **common), shape, variance
    if not corner and eps == 1e-5 and shift in (0, 1):
        heads = {"heads": 1, "head_width": head_width or 0}
        options = {"adaptive": adaptive, "resample": "conv", "sin_first": sines, "endpoint": shift == 1}
        return part("network", "adm", **common, **heads, **options), shape, variance
    raise ForeignError(
        f"A UNet2DModel with downsample_padding={0 if corner else 1}, norm_eps={eps:g}, "
        f"attention_head_dim={head_width}, freq_shift={shift}, flip_sin_to_cos={not sines} is neither our ddpm nor "
        "our adm."
    )


def read_scheduler(config: Mapping[str, Any], variance: str) -> tuple[Part, str, Sample]:
    """Return (schedule, target, sampling) of a scheduler's configuration; DDPM's defaults where it is silent."""
    steps = config.get("num_train_timesteps", 1000)
    kind = config.get("beta_schedule", "linear")
    scale = steps / 1000  # our ends are those of a chain of 1000 steps
    low, high = config.get("beta_start", 1e-4) * scale, config.get("beta_end", 0.02) * scale
    schedules = {
        "linear": part("schedule", "linear", steps=steps, beta_min=low, beta_max=high),
        "scaled_linear": part("schedule", "quadratic", steps=steps, beta_min=low, beta_max=high),
        "squaredcos_cap_v2": part("schedule", "cosine", steps=steps),
    }
    refused = {
        "trained_betas": config.get("trained_betas") is not None,
        "rescale_betas_zero_snr": bool(config.get("rescale_betas_zero_snr")),
        "thresholding": bool(config.get("thresholding")),
        f"beta_schedule={kind}": kind not in schedules,
        f"prediction_type={config.get('prediction_type')}": config.get("prediction_type", "epsilon") not in TARGETS,
    }
    if wrong := [name for name, here in refused.items() if here]:
        raise ForeignError(f"A scheduler with {', '.join(wrong)} has no recipe here.")
    clip: bool | float = config.get("clip_sample", True)
    clip = float(config.get("clip_sample_range", 1.0)) if clip else False
    clip = True if clip == 1.0 else clip
    if config.get("_class_name") == "DDIMScheduler":
        sampler = part("sampler", "ddim", clip=clip)
        grid = part("grid", "respaced", spec="ddim50") if steps % 50 == 0 else part("grid", "full")
        return schedules[kind], TARGETS[config.get("prediction_type", "epsilon")], Sample(sampler, grid)
    wide = "large" if config.get("variance_type", "fixed_small").startswith("fixed_large") else "small"
    sample = ancestral("learned" if variance == "range" else wide)
    sample = Sample(sample.sampler.with_options(clip=clip), sample.grid)
    return schedules[kind], TARGETS[config.get("prediction_type", "epsilon")], sample
