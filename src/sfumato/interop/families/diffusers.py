"""diffusers: a folder with the configuration and weights of a UNet2DModel, alone or in a pipeline with its scheduler.

Two of our networks cover it: `ddpm`, where the configuration is that of DDPM (corner padding, one head, epsilon 1e-6),
and `adm` with plain convolutions otherwise. A configuration with anything else in it is refused by name, and so is
a key that is not known. What the scheduler says is read by `interop.schedulers`; without one, DDPM's is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sfumato.interop.families._chain import chain_recipe
from sfumato.interop.foreign import Foreign, Imported, numbered
from sfumato.interop.keys import rename_diffusers
from sfumato.interop.schedulers import read_scheduler
from sfumato.interop.tensors import ForeignError
from sfumato.interop.walks import CALL
from sfumato.runs.recipe import Part, Shape, part

BLOCKS = {"DownBlock2D": False, "AttnDownBlock2D": True, "UpBlock2D": False, "AttnUpBlock2D": True}
FIXED: dict[str, Any] = {  # key -> the library's default, which is the only value that we have
    "act_fn": "silu",
    "time_embedding_type": "positional",
    "mid_block_scale_factor": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "center_input_sample": False,
    "add_attention": True,
    "class_embed_type": None,
    "mid_block_type": "UNetMidBlock2D",
    "time_embedding_dim": None,
}
READ: dict[str, Any] = {  # key -> the library's default
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "downsample_padding": 1,
    "dropout": 0.0,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "num_class_embeds": None,
}
IDLE = {  # of a learned embedding of time; and of the average that wrote unet_ema/
    "num_train_timesteps",
    "decay",
    "min_decay",
    "optimization_step",
    "update_after_step",
    "use_ema_warmup",
    "inv_gamma",
    "power",
}
PIPELINE = ("unet", "scheduler")  # what a pipeline of pixels has
PIPELINES = {  # their class -> the scheduler that it makes of any, None if it takes the one that the folder names
    "DDPMPipeline": None,
    "DDIMPipeline": "DDIMScheduler",
    "PNDMPipeline": "PNDMScheduler",
}
SHIFTS = {"default": False, "scale_shift": True}
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
    pipeline = found.configs.get("pipeline", {})
    others = [key for key, made in pipeline.items() if isinstance(made, list) and any(made) and key not in PIPELINE]
    if others:
        raise ForeignError(
            f"{found.path} is a pipeline with {', '.join(others)} beside its U-Net, as models of latents have; only a "
            "U-Net of pixels with its scheduler is read."
        )
    network, shape, variance = read_unet(config)
    data, line = found.data(shape)
    assumed = [line]
    scheduler, told = _scheduler(pipeline, found.configs.get("scheduler"))
    assumed += told
    if scheduler is None:
        assumed.insert(0, "schedule=linear schedule.steps=1000: there is no scheduler's configuration")
    elif "_class_name" not in scheduler:
        assumed.insert(0, "sample.sampler=ancestral: the scheduler's configuration names no class; taken for DDPM's")
    walk = read_scheduler(scheduler or {}, variance == "range", pipeline.get(CALL))
    recipe = chain_recipe(
        "imported-diffusers", data, shape, network, part("schedule", "linear"), variance=variance, sample=walk.sample
    )
    recipe = replace(recipe, **walk.fields)
    tensors = found.renamed(found.tensors, _current)
    changed = [f"changed: {line}" for line in (walk.changed if scheduler is not None else ())]
    return Imported("diffusers", recipe, tensors, rename_diffusers, tuple(assumed), (*found.notes, *changed))


def _scheduler(
    pipeline: Mapping[str, Any], config: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any] | None, list[str]]:
    """Return the scheduler's configuration with the class that walks in the pipeline, and what was assumed.

    Arguments:
        pipeline: Content of model_index.json, which decides the classes; {} if there is none.
        config: Content of scheduler_config.json; None if there is none.

    Raises:
        ForeignError: If it names another class of network.
    """
    kind, (unet, named) = pipeline.get("_class_name"), (_class_in(pipeline, key) for key in PIPELINE)
    if unet not in (None, "UNet2DModel"):
        raise ForeignError(f"model_index.json makes a {unet} of unet/; only UNet2DModel is a pixel-space U-Net.")
    known = kind is None or (isinstance(kind, str) and kind in PIPELINES)
    walks = (PIPELINES[kind] if known and kind is not None else None) or named
    told = (
        [] if known else [f"sample: a {kind} (model_index.json) is not known; its parts are read as a DDPMPipeline's"]
    )
    if config is None or walks is None:
        return config, told
    if config.get("_class_name", walks) != walks:
        mine = config["_class_name"]
        told.append(
            f"sample.sampler, sample.grid: the {mine} of scheduler_config.json is a {walks} by model_index.json"
        )
    return {**config, "_class_name": walks}, told


def _class_in(pipeline: Mapping[str, Any], key: str) -> str | None:
    """Return the class that a pipeline's list of (library, class) names; None if there is none."""
    entry = pipeline.get(key)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str) else None


def _current(name: str) -> str:
    """Return an attention's name as diffusers writes it now."""
    for old, new in OLD_ATTENTION.items():
        name = name.replace(old, new) if ".attentions." in name else name
    return name


def read_unet(config: Mapping[str, Any]) -> tuple[Part, Shape, str]:
    """Return (network, image shape, learned variance) of a UNet2DModel's configuration."""
    for key, value in config.items():
        if key in FIXED and value != FIXED[key]:
            raise ForeignError(f"A UNet2DModel with {key}={value!r} has no network here; only {FIXED[key]!r} has.")
        if not (key.startswith("_") or key in FIXED or key in READ or key in IDLE):
            raise ForeignError(f"A UNet2DModel with {key}={value!r} is not known; remove the key if it has no effect.")
        if isinstance(READ.get(key), bool) and not isinstance(value, bool):
            raise ForeignError(f"A UNet2DModel with {key}={value!r} is not valid; it is true or false.")
    config = READ | {key: value for key, value in config.items() if key in READ}
    downs, ups = list(config["down_block_types"]), list(config["up_block_types"])
    if strange := sorted({*downs, *ups} - set(BLOCKS)):
        raise ForeignError(f"A UNet2DModel with blocks {', '.join(strange)} has no network here.")
    attended = [BLOCKS[kind] for kind in downs]
    if attended != [BLOCKS[kind] for kind in reversed(ups)]:
        raise ForeignError("A UNet2DModel whose ways down and up attend at different levels has no network here.")
    widths = list(config["block_out_channels"])
    size = config["sample_size"]
    if len(widths) != len(downs):
        raise ForeignError(f"A UNet2DModel has a width for every level; got {len(widths)} for {len(downs)} blocks.")
    if not isinstance(size, int):
        raise ForeignError(f"A UNet2DModel needs one sample_size, the side of its images; got {size!r}.")
    channels, out = config["in_channels"], config["out_channels"]
    if out not in (channels, 2 * channels):
        raise ForeignError(f"A UNet2DModel from {channels} to {out} channels is no denoiser of images.")
    mult = tuple(w / widths[0] if w % widths[0] else w // widths[0] for w in widths)
    common: dict[str, Any] = {
        "width": widths[0],
        "mult": mult,
        "blocks": config["layers_per_block"],
        "attention": tuple(size >> i for i, here in enumerate(attended) if here),
        "dropout": float(config["dropout"]),
        "groups": config["norm_num_groups"],
    }
    head_width, shift = config["attention_head_dim"], config["freq_shift"]
    sines = not config["flip_sin_to_cos"]
    corner, eps = config["downsample_padding"] == 0, config["norm_eps"]
    if config["resnet_time_scale_shift"] not in SHIFTS or config["downsample_padding"] not in (0, 1):
        kind, pad = config["resnet_time_scale_shift"], config["downsample_padding"]
        raise ForeignError(
            f"A UNet2DModel with resnet_time_scale_shift={kind!r}, downsample_padding={pad} has no network here; "
            "default and scale_shift, 0 and 1 have."
        )
    adaptive = SHIFTS[config["resnet_time_scale_shift"]]
    groups = config["attn_norm_num_groups"] or (None if adaptive else common["groups"])
    if groups != common["groups"]:  # diffusers then leaves the middle's attention without a normalisation
        raise ForeignError(f"A UNet2DModel with attn_norm_num_groups={groups} in its middle has no network here.")
    classes = config["num_class_embeds"] or 0
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
