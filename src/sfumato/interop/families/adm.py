"""iDDPM and ADM: the U-Nets and noisy classifiers of improved-diffusion and guided-diffusion.

A state dict tells widths, levels, blocks, where attention stands, how the embedding enters, how sides are halved, the
number of classes and whether the variance is learned. It does not tell the number of heads, the order of attention's
channels, the side of the images or the chain. The published files are known by their names; for others these are taken
from the defaults of the original commands and printed as assumptions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from torch import Tensor

from sfumato.core.find import find
from sfumato.interop.families._chain import chain_recipe
from sfumato.interop.foreign import Foreign, Imported, numbered, side_in
from sfumato.interop.keys import HEADS_FIRST, QKV_FIRST, rename_adm
from sfumato.interop.tensors import ForeignError
from sfumato.recipes._paper import RAW, ancestral
from sfumato.runs.override import override
from sfumato.runs.recipe import Data, Part, Recipe, Shape, part

ORDERS = {"legacy": HEADS_FIRST, "new": QKV_FIRST}
OFFICIAL: dict[str, tuple[str, str, tuple[str, ...]]] = {  # file -> recipe, order, fields in which it differs
    "64x64_diffusion": ("adm-imagenet64", "new", ()),
    "128x128_diffusion": ("adm-imagenet128", "legacy", ()),
    "256x256_diffusion": ("adm-imagenet256", "legacy", ()),
    "256x256_diffusion_uncond": ("adm-imagenet256-uncond", "legacy", ()),
    "512x512_diffusion": ("adm-imagenet512", "legacy", ()),
    "lsun_bedroom": ("adm-lsun-bedroom", "legacy", ()),
    "lsun_cat": ("adm-lsun-cat", "legacy", ()),
    "lsun_horse": ("adm-lsun-horse", "legacy", ()),
    "lsun_horse_nodropout": ("adm-lsun-horse", "legacy", ("network.dropout=0",)),
    "64x64_classifier": ("adm-imagenet64-classifier", "legacy", ()),
    "128x128_classifier": ("adm-imagenet128-classifier", "legacy", ()),
    "256x256_classifier": ("adm-imagenet256-classifier", "legacy", ()),
    "512x512_classifier": ("adm-imagenet512-classifier", "legacy", ()),
    "cifar10_uncond_50M_500K": ("iddpm-cifar10", "legacy", ()),
    "cifar10_uncond_vlb_50M_500K": ("iddpm-cifar10-vlb", "legacy", ()),
    "imagenet64_uncond_100M_1500K": ("iddpm-imagenet64", "legacy", ()),
    "imagenet64_uncond_vlb_100M_1500K": ("iddpm-imagenet64", "legacy", ()),
    "imagenet64_cond_270M_250K": ("iddpm-imagenet64-cond", "legacy", ()),
    "lsun_uncond_100M_1200K_bs128": ("iddpm-lsun-bedroom", "legacy", ()),
    "lsun_uncond_100M_2400K_bs64": ("iddpm-lsun-bedroom", "legacy", ()),
}
SIDES = {  # the original's default multipliers of each side
    (1, 2, 2, 2): 32,
    (1, 2, 3, 4): 64,
    (1, 1, 2, 3, 4): 128,
    (1, 1, 2, 2, 4, 4): 256,
    (0.5, 1, 1, 2, 2, 4, 4): 512,
}


def adm(found: Foreign) -> Imported | None:
    """U-Nets and classifiers of guided-diffusion and improved-diffusion.

    Arguments:
        found: The opened checkpoint.

    Raises:
        ForeignError: For an upsampler, or levels that cannot be told apart.
    """
    tensors = found.tensors
    if "input_blocks.0.0.weight" not in tensors or "time_embed.0.weight" not in tensors:
        return None
    if found.order not in (None, *ORDERS):
        raise ForeignError(f"The order of attention channels is {' or '.join(ORDERS)}; got {found.order!r}.")
    channels, out = tensors["input_blocks.0.0.weight"].shape[1], _out_channels(tensors)
    if out in (3, 6) and channels == 6:
        raise ForeignError(f"{found.path} is an upsampler, which takes a small image beside the noisy one; no recipe.")
    known = OFFICIAL.get(found.path.stem)
    if known is not None:
        name, order, fields = known
        recipe = override(find("recipe", name)(), fields)
        order = found.order or order
        assumed: list[str] = []
    else:
        order = found.order or "legacy"
        recipe, assumed = _inferred(found, tensors)
        if found.order is None and any(".qkv.weight" in name for name in tensors):
            assumed.append("attention channels in the legacy order (--order new if use_new_attention_order was set)")
    recipe = replace(recipe, ema=RAW, sigma_data=recipe.sigma_data or 0.5)
    rename = partial(rename_adm, order=ORDERS[order])
    return Imported("adm", recipe, tensors, rename, tuple(assumed), heeded=("order",))


def _out_channels(tensors: Mapping[str, Tensor]) -> int:
    """Return the channels of the last convolution; 0 for a classifier, which has no way up."""
    return tensors["out.2.weight"].shape[0] if any(name.startswith("output_blocks.") for name in tensors) else 0


def _inferred(found: Foreign, tensors: Mapping[str, Tensor]) -> tuple[Recipe, list[str]]:
    width = tensors["time_embed.0.weight"].shape[1]
    classifier = not _out_channels(tensors)
    levels, blocks, kind = _levels(found, tensors)
    run = blocks + 1
    outs = [_block_width(tensors, f"input_blocks.{i * run + 1}.0") for i in range(levels)]
    mult = tuple(o // width if o % width == 0 else o / width for o in outs)
    attended = [i for i in range(levels) if f"input_blocks.{i * run + 1}.1.qkv.weight" in tensors]
    adaptive = tensors["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * outs[0]
    pool = _pool(tensors) if classifier else None
    assumed = []
    size = found.size or side_in(found.path.name) or SIDES.get(mult)
    if classifier and "out.2.positional_embedding" in tensors:
        size = round((tensors["out.2.positional_embedding"].shape[1] - 1) ** 0.5) << (levels - 1)
    elif size is None:
        raise ForeignError(f"{found.path} does not tell the side of its images. Say it with --size, e.g. --size 64.")
    elif found.size is None:
        assumed.append(f"size {size}: by name or multipliers {','.join(f'{m:g}' for m in mult)} (--size)")
    channels = tensors["input_blocks.0.0.weight"].shape[1]
    attention = tuple(size >> i for i in attended)
    by_width = all(o % 64 == 0 for o in (*(outs[i] for i in attended), outs[-1]))
    heads = {"heads": 4, "head_width": 64 if by_width and kind == "block" else 0}
    told = "heads of 64 channels" if heads["head_width"] else "4 heads"
    assumed.append(f"{told} of attention: weights do not tell (network.heads=N network.head_width=0)")
    common = {"width": width, "mult": mult, "blocks": blocks, "attention": attention, **heads, "adaptive": adaptive}
    schedule = part("schedule", "linear", steps=1000)
    assumed.append("schedule=linear schedule.steps=1000 (for cosine, 4000 steps: schedule=cosine schedule.steps=4000)")
    if classifier:
        classes = _classes(tensors)
        shape = Shape(channels, size, size, numbered(classes))
        data, line = found.data(shape)
        network = part("network", "adm-classifier", **common, resample=kind, pool=pool)
        return _classifier(data, shape, network, schedule), [*assumed, line]
    out, labels = _out_channels(tensors), tensors.get("label_emb.weight")
    shape = Shape(channels, size, size, numbered(0 if labels is None else len(labels)))
    data, line = found.data(shape)
    network = part("network", "adm", **common, resample=kind)
    variance = "range" if out == 2 * channels else "none"
    sample = ancestral("learned" if variance == "range" else "large", part("grid", "respaced", steps=250))
    recipe = chain_recipe("imported-adm", data, shape, network, schedule, variance=variance, sample=sample)
    return recipe, [*assumed, line]


def _classifier(data: Data, shape: Shape, network: Part, schedule: Part) -> Recipe:
    base: Recipe = find("recipe", "adm-imagenet64-classifier")()
    name = "imported-adm-classifier"
    return replace(base, name=name, data=data, shape=shape, network=network, schedule=schedule)


def _block_width(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return int(tensors[f"{prefix}.out_layers.3.weight"].shape[0])


def _pool(tensors: Mapping[str, Tensor]) -> str:
    if tensors["out.0.weight"].ndim == 2:  # a perceptron, on the means of all layers
        return "spatial-norm" if "out.3.weight" in tensors else "spatial"
    return "attention" if "out.2.positional_embedding" in tensors else "mean"


def _classes(tensors: Mapping[str, Tensor]) -> int:
    heads = ("out.2.c_proj.weight", "out.3.weight", "out.2.weight")
    return int(tensors[next(name for name in heads if name in tensors)].shape[0])


def _levels(found: Foreign, tensors: Mapping[str, Tensor]) -> tuple[int, int, str]:
    """Return (levels, blocks per level, resampling): the one reading of the ladder that fits every block."""
    count = 1 + max(int(m[1]) for name in tensors if (m := re.match(r"input_blocks\.(\d+)\.", name)))
    fits = []
    for levels in range(1, count + 1):
        if count % levels == 0 and count // levels > 1:
            run = count // levels
            moves = [f"input_blocks.{i * run}.0" for i in range(1, levels)]
            marks = {"conv": "op.weight", "block": "in_layers.0.weight"}  # without either the move has no weights
            kind = next((k for k, mark in marks.items() if any(f"{m}.{mark}" in tensors for m in moves)), None)
            kind = kind or ("mean" if moves else "block")
            if _fits(tensors, levels, run, kind):
                fits.append((levels, run - 1, kind))
    if len(fits) != 1:
        raise ForeignError(
            f"The levels of {found.path} cannot be told apart ({len(fits)} readings fit), so no network can be "
            "built for it; it is damaged, or a U-Net of another kind."
        )
    return fits[0]


def _fits(tensors: Mapping[str, Tensor], levels: int, run: int, kind: str) -> bool:
    ups = len({m[1] for name in tensors if (m := re.match(r"(output_blocks\.\d+\.[12])\.(?:conv\.|in_layers)", name))})
    if "output_blocks.0.0.in_layers.0.weight" in tensors and ups != (0 if kind == "mean" else levels - 1):
        return False
    for level in range(levels):
        if level:
            start = f"input_blocks.{level * run}"
            marks = f"{start}.0.op.weight" if kind == "conv" else f"{start}.0.in_layers.0.weight"
            other = (f"{start}.0.skip_connection.weight", f"{start}.1.qkv.weight")
            bare = not any(name.startswith(f"{start}.") for name in tensors)
            if bare != (kind == "mean") or (marks in tensors) == bare or any(name in tensors for name in other):
                return False
        steps = [f"input_blocks.{level * run + k}" for k in range(1, run)]
        if not all(f"{step}.0.out_layers.3.weight" in tensors for step in steps):
            return False
        if len({_block_width(tensors, f"{step}.0") for step in steps}) != 1:
            return False
        if len({f"{step}.1.qkv.weight" in tensors for step in steps}) != 1:
            return False
    return True
