"""diffusers: a pipeline folder that DDPMPipeline or DDIMPipeline loads, and the call that walks as the run does.

What can leave is what those pipelines can hold: an unlabelled network `ddpm`, or `adm` with plain convolutions, on a
discrete variance-preserving chain, told the step 0..T-1. The chain's betas are written by name where diffusers has the
same, else as numbers. `ancestral` becomes a DDPMPipeline; `ddim`, and `euler` where it is the same, a DDIMPipeline. The
grid must be one of diffusers' spacings (`interop.spacings`); DDIM steps by T // N, so its grid must, too.

    images of DDPMPipeline         those of ancestral, if its noise were ours
    images of DDIMPipeline         those of ddim; eta and use_clipped_model_output are arguments of the call

The noise differs: diffusers draws it from torch's generator, we address it by seed and step. What belongs to the call
is kept in model_index.json under `CALL`, which diffusers does not read, so that an import samples as the run did.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sfumato.core.bounds import ByLevel, ByLevelOr0
from sfumato.core.level import Level, index_in
from sfumato.core.table import Table
from sfumato.interop.card import card
from sfumato.interop.keys import diffusers_names
from sfumato.interop.spacings import SPACINGS, rounded, visited
from sfumato.interop.tensors import ForeignError
from sfumato.interop.walks import CALL
from sfumato.networks._blocks import one_by_level
from sfumato.runs.guided import guidance_of
from sfumato.runs.part import option
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Part, Recipe
from sfumato.runs.run import Run

VERSION = "0.42.1"  # of diffusers, whose configuration keys these are
TARGETS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
VARIANCES = {"small": "fixed_small", "large": "fixed_large", "learned": "learned_range"}
NAMED = {"linear": "linear", "quadratic": "scaled_linear"}


def diffusers(run: Run, folder: Path, use: str | None = None) -> list[str]:
    """A pipeline folder for DDPMPipeline or DDIMPipeline.

    Arguments:
        run: The run to write.
        folder: An empty folder to write into.
        use: Name of the average of the weights; None for the recipe's choice.

    Returns:
        What was written, in lines to print.

    Raises:
        ForeignError: For a run that a pipeline of diffusers cannot hold, with the reason.
    """
    recipe = run.recipe
    unet = unet_config(recipe)
    scheduler, call = scheduler_config(recipe)
    network = run.network(use)
    pipeline = scheduler["_class_name"].replace("Scheduler", "Pipeline")
    parts = {"scheduler": ["diffusers", scheduler["_class_name"]], "unet": ["diffusers", "UNet2DModel"]}
    (folder / "unet").mkdir()
    (folder / "scheduler").mkdir()
    _write(folder / "model_index.json", {"_class_name": pipeline, "_diffusers_version": VERSION, CALL: call} | parts)
    _write(folder / "unet" / "config.json", unet)
    _write(folder / "scheduler" / "scheduler_config.json", scheduler)
    tensors = {name: tensor.contiguous() for name, tensor in foreign_state(network).items()}
    save_file(tensors, folder / "unet" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    (folder / "README.md").write_text(card(run, use))
    told = "".join(f", {key}={value!r}" for key, value in call.items())
    same = f"{pipeline}.from_pretrained({json.dumps(str(folder))})(batch_size=8{told})"
    return [f"{pipeline}: {same}", "That call walks as the run does, from noise that torch draws."]


def unet_config(recipe: Recipe) -> dict[str, Any]:
    """Return the configuration of the UNet2DModel that is the run's network."""
    network, shape = recipe.network, recipe.shape
    assert shape is not None

    def of(name: str) -> Any:
        return option(network, name)

    if network.name not in ("ddpm", "adm"):
        raise _refused(f"network={network.name}: only ddpm, and adm with resample=conv, are UNet2DModels")
    ours = network.name == "ddpm"
    reasons: dict[str, Callable[[], bool]] = {
        "a model with labels (these pipelines pass none)": lambda: bool(shape.classes and recipe.data.labels),
        "attributes or an image beside it (these pipelines tell none)": lambda: recipe.data.told_more,
        "a row for no label, kept from a labelled parent (train.start)": lambda: shape.null,
        "data.augment (its labels have no place)": lambda: recipe.data.augment > 0,
        f"network.resample={of('resample')} (only conv)": lambda: not ours and of("resample") != "conv",
        "network.bridge=false": lambda: not ours and not of("bridge"),
        "network.rescale=true": lambda: not ours and of("rescale"),
        f"network.group_width={of('group_width')}": lambda: not ours and of("group_width") != 1,
        "a first level of another width than network.width": lambda: ours and of("mult")[0] != 1,
        f"network.resample={of('resample')} (only corner)": lambda: ours and of("resample") != "corner",
        "images that are not square": lambda: shape.height != shape.width,
    }
    for reason, here in reasons.items():
        if here():
            raise _refused(reason)
    size, mult = shape.height, of("mult")
    widths = [round(of("width") * m) for m in mult]
    if any(w % of("groups") for w in widths):
        raise _refused(f"widths {widths} that {of('groups')} groups do not divide")
    attended = [size >> i in of("attention") for i in range(len(mult))]
    return {
        "_class_name": "UNet2DModel",
        "_diffusers_version": VERSION,
        "sample_size": size,
        "in_channels": shape.channels,
        "out_channels": shape.channels * (1 if recipe.variance == "none" else 2),
        "down_block_types": ["AttnDownBlock2D" if here else "DownBlock2D" for here in attended],
        "up_block_types": ["AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attended)],
        "block_out_channels": widths,
        "layers_per_block": of("blocks"),
        "dropout": of("dropout"),
        "norm_num_groups": of("groups"),
        "norm_eps": 1e-6 if ours else 1e-5,
        "downsample_padding": 0 if ours else 1,
        "attention_head_dim": None if ours else _head_width(widths, attended, of("heads"), of("head_width")),
        "freq_shift": 1 if ours or of("endpoint") else 0,
        "flip_sin_to_cos": not (ours or of("sin_first")),
        "attn_norm_num_groups": of("groups"),
        "resnet_time_scale_shift": "scale_shift" if not ours and of("adaptive") else "default",
        "act_fn": "silu",
        "time_embedding_type": "positional",
        "mid_block_scale_factor": 1,
        "center_input_sample": False,
        "add_attention": True,
    }


def _head_width(widths: list[int], attended: list[bool], heads: ByLevel, head_width: ByLevelOr0) -> int | None:
    counts = one_by_level(heads, len(widths), "heads")
    levels = list(zip(widths, [*attended[:-1], True], counts, one_by_level(head_width, len(widths), "head_width")))
    used = [(width, count, channels) for width, here, count, channels in levels if here]  # the middle attends, too
    if all(count == 1 and not channels for _, count, channels in used):
        return None
    found = {channels or width // count for width, count, channels in used}
    if len(found) > 1:
        raise _refused(
            f"network.heads={heads} network.head_width={head_width}: heads at levels of different widths "
            "(diffusers has channels per head, the same at all levels)"
        )
    return found.pop()


def scheduler_config(recipe: Recipe) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the scheduler that walks as the run does and the arguments of the pipeline's call."""
    planned = plan(recipe)
    table = planned.schedule
    plain = dict(recipe.c_noise.options) in ({}, {"scale": 1.0}, {"scale": 1.0, "offset": -1.0})
    if not isinstance(table, Table) or recipe.c_noise.name != "index" or not plain:
        what = f"schedule={recipe.schedule.name} with c_noise={recipe.c_noise}"
        raise _refused(f"{what}: only discrete chains told as step 0..T-1")
    if recipe.target.name not in TARGETS:
        raise _refused(f"target={recipe.target.name}: only {', '.join(TARGETS)}")
    if recipe.variance == "diagonal":
        raise _refused("variance=diagonal, which no pipeline samples as we do")
    if forms := guidance_of(recipe.sample):
        raise _refused(f"the guidance {', '.join(map(str, forms))}")
    if recipe.sample.size:
        raise _refused("sample.size: its pipelines make images of the side of training")
    sampler = recipe.sample.sampler
    clip = option(sampler, "clip") or False
    config: dict[str, Any] = {
        "_diffusers_version": VERSION,
        "num_train_timesteps": table.steps,
        "prediction_type": TARGETS[recipe.target.name],
        "clip_sample": bool(clip),
        "clip_sample_range": float(clip) if clip else 1.0,
        "steps_offset": 0,
        **_betas(recipe, table),
    }
    call: dict[str, Any] = {"num_inference_steps": len(planned.grid) - 1}
    if sampler.name == "ancestral":
        variance = VARIANCES[option(sampler, "variance")]
        spacing = _spacing(recipe.sample.grid, table.levels, planned.grid, by_stride=False)
        if variance != "fixed_small" and int(index_in(table.levels, planned.grid[-2])) > 1:
            rule = "DDPMPipeline adds noise to the image itself where step 0 is not visited"
            raise _refused(f"a grid without step 0 under {variance}: {rule}")
        return {"_class_name": "DDPMScheduler", "variance_type": variance, **config, **spacing}, call
    if recipe.variance != "none":
        raise _refused("a learned variance with a sampler that does not read it; set sample.sampler=ancestral")
    call |= _ddim_call(sampler)
    spacing = _spacing(recipe.sample.grid, table.levels, planned.grid, by_stride=True)
    return {"_class_name": "DDIMScheduler", "set_alpha_to_one": True, **config, **spacing}, call


def _ddim_call(sampler: Part) -> dict[str, Any]:
    """Return the arguments by which DDIMPipeline walks as a sampler, or refuse the sampler."""
    if sampler.name == "ddim" and not option(sampler, "sigma_hat") and not option(sampler, "fresh"):
        eta, clipped = option(sampler, "eta"), bool(option(sampler, "clip") and option(sampler, "clip_noise"))
        return ({"eta": eta} if eta else {}) | ({"use_clipped_model_output": True} if clipped else {})
    if sampler.name == "euler" and option(sampler, "gauge") in ("ve", "flow") and not option(sampler, "churn"):
        return {}  # the same step
    raise _refused(f"sample.sampler={sampler}: only ancestral, ddim, and euler where it is ddim")


def _spacing(named: Part, levels: Level, grid: Level, *, by_stride: bool) -> dict[str, Any]:
    """Return how diffusers spaces the steps that a grid visits, or refuse the grid.

    Arguments:
        named: The grid as the recipe names it, for the message.
        levels: The chain, from clean to noisy, shape (T + 1,).
        grid: From noisy to clean, shape (N + 1,).
        by_stride: Whether each step goes T // N steps down, whatever the next of the list is.
    """
    total, count = len(levels) - 1, len(grid) - 1
    try:
        steps = (index_in(levels, grid[:-1]) - 1).tolist()
    except ValueError:
        raise _refused(f"sample.grid={named}, which leaves the chain's own levels") from None
    stride = total // count
    even = all(a - b == stride for a, b in zip(steps, [*steps[1:], steps[-1] - stride])) and steps[-1] < stride
    for spacing in SPACINGS:
        if rounded(visited(spacing, total, count)) == steps and (even or not by_stride):
            return {"timestep_spacing": spacing}
    rule = f"its DDIM goes down by T // N = {stride} at every step" if by_stride else "its spacings give other steps"
    raise _refused(f"sample.grid={named} of a chain of {total}: {rule}")


def _betas(recipe: Recipe, table: Table) -> dict[str, Any]:
    """Return the chain by diffusers' name for it where there is one, else as numbers."""
    name = recipe.schedule.name
    if name in NAMED:
        scale = 1000 / table.steps
        low, high = option(recipe.schedule, "beta_min") * scale, option(recipe.schedule, "beta_max") * scale
        return {"beta_schedule": NAMED[name], "beta_start": low, "beta_end": high}
    if name == "cosine" and set(recipe.schedule.options) <= {"steps"}:
        return {"beta_schedule": "squaredcos_cap_v2"}
    abar = table.levels.alpha.to(torch.float64) ** 2
    return {"beta_schedule": "linear", "trained_betas": (1 - abar[1:] / abar[:-1]).tolist()}


def foreign_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a `ddpm` or `adm` network in diffusers' names."""
    names, found = diffusers_names(network), {}
    for name, tensor in network.state_dict().items():
        module, leaf = name.rpartition(".")[::2]
        targets = names(module, leaf)
        for target, rows in zip(targets, tensor.chunk(len(targets))):
            flat = ".attentions." in target and leaf == "weight" and rows.ndim == 4
            found[target] = rows.flatten(1) if flat else rows
    return found


def _refused(reason: str) -> ForeignError:
    return ForeignError(f"diffusers' pipelines cannot hold {reason}. Export to safetensors or onnx instead.")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
