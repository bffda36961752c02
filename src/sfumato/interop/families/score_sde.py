"""Score SDE: checkpoints of score_sde_pytorch, NCSN++ and DDPM++ with BigGAN's residual blocks.

The original numbers its modules in one list, ``all_modules.N``. The kinds in that list (a block, an attention, a
resampling block, the image's path) read like a sentence of the ladder, from which levels and blocks follow. The file
holds the trained weights and their exponential average as a list without names, in the order of the weights; the
average is what the paper samples, so it is what is imported. Images lie in [0, 1] in the original VE code, so sigma
here is twice the published one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from sfumato.core.find import find
from sfumato.interop.foreign import Foreign, Imported
from sfumato.interop.keys import State, position_of, rename
from sfumato.interop.tensors import ForeignError
from sfumato.recipes._paper import RAW
from sfumato.runs.recipe import Recipe, Shape, part

LAYERS = {
    "norm1": "GroupNorm_0",
    "conv1": "Conv_0",
    "modulation": "Dense_0",
    "norm2": "GroupNorm_1",
    "conv2": "Conv_1",
    "shortcut": "Conv_2",
}
NUMBER = re.compile(r"all_modules\.(\d+)\.(.+)")


def score_sde(found: Foreign) -> Imported | None:
    """Checkpoints of score_sde_pytorch: DDPM++ (VP) and NCSN++ (VE).

    Arguments:
        found: The opened checkpoint.

    Raises:
        ForeignError: For a network of other blocks, or an average that does not fit the weights.
    """
    tensors = found.tensors
    if "all_modules.0.W" not in tensors and "all_modules.0.weight" not in tensors:
        return None
    tensors, notes = _averaged(found, dict(tensors))
    kinds = _kinds(tensors)
    fourier = kinds[0] == "fourier"
    start = 3 if fourier else 2
    if kinds[start - 2 : start + 1] != ["dense", "dense", "conv"]:
        raise ForeignError(f"{found.path} is no noise-conditional network of this family.")
    width, channels = tensors[f"all_modules.{start}.weight"].shape[:2]
    levels, blocks, attended, order = _ladder(found, kinds, start)
    paths = {"image_path": "path" in kinds, "image_skip": "combine" in kinds, "image_out": kinds.count("norm") > 1}
    mult = tuple(
        int(tensors[f"all_modules.{order[f'encoder.levels.{i}.steps.0.block']}.Conv_1.weight"].shape[0]) // int(width)
        for i in range(levels)
    )
    size = found.size or (16 << attended[0] if attended else 32)
    shape = Shape(int(channels), size, size)
    data, line = found.data(shape)
    network = part(
        "network",
        "songunet",
        width=int(width),
        mult=mult,
        blocks=blocks,
        dropout=0.1,
        fourier=fourier,
        attention=tuple(size >> i for i in attended),
        taps=(1, 3, 3, 1) if any(paths.values()) else (1, 1),
        **{name: True for name, here in paths.items() if here},
    )
    assumed = [line]
    if found.size is None:
        assumed.insert(0, f"size {size}: the paper attends at 16x16 (--size says otherwise)")
    base: Recipe = find("recipe", "ncsnpp-cifar10" if fourier else "ddpmpp-cifar10")()
    sigmas = tensors.get("sigmas")
    if fourier:
        low, high = (0.02, 100.0) if sigmas is None else (2 * float(sigmas.min()), 2 * float(sigmas.max()))
        base = replace(
            base,
            schedule=part("schedule", "ve", sigma_min=low, sigma_max=high),
            sample=replace(base.sample, grid=base.sample.grid.with_options(sigma_min=low, sigma_max=high)),
        )
        if sigmas is None:
            assumed.append("schedule.sigma_max=100: twice the 50 of CIFAR-10 (the file has no sigmas)")
    else:
        assumed.append("the VP process in continuous time (discrete: schedule=linear c_noise=index sample.grid=full)")
    recipe = replace(base, name="imported-score-sde", data=data, network=network, shape=shape, sigma_data=0.5, ema=RAW)
    rename = partial(rename_score_sde, order=order)
    return Imported("score-sde", recipe, tensors, rename, tuple(assumed), notes, heeded=("raw",))


def _averaged(found: Foreign, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors with the average in place of the weights, if the file has one and it is wanted."""
    ema = found.content.get("ema") if isinstance(found.content, dict) else None
    shadow = ema.get("shadow_params") if isinstance(ema, dict) else None
    if shadow is None or found.raw:
        return tensors, ("the trained weights, not their average",) if found.raw else ()
    names = [name for name in tensors if name != "sigmas" and not name.endswith("all_modules.0.W")]
    fits = len(shadow) == len(names) and all(
        isinstance(a, Tensor) and a.shape == tensors[name].shape for a, name in zip(shadow, names)
    )
    if not fits:
        raise ForeignError(f"{found.path} holds an average that does not fit its weights; --raw takes the weights.")
    return tensors | dict(zip(names, shadow)), ("the exponential average of the weights (--raw: the weights)",)


def _kinds(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return what stands at every number of the original's list."""
    inside: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if match := NUMBER.fullmatch(name):
            inside.setdefault(int(match[1]), {})[match[2]] = tensor
    return [_kind(inside[i]) for i in sorted(inside)]


def _kind(layer: Mapping[str, Tensor]) -> str:
    if "W" in layer:
        return "fourier"
    if "NIN_3.W" in layer:
        return "attention"
    if "Conv2d_0.weight" in layer:
        return "path"
    if set(layer) == {"Conv_0.weight", "Conv_0.bias"}:
        return "combine"
    if "GroupNorm_1.weight" in layer and "NIN_0.W" not in layer:
        same = layer["Conv_0.weight"].shape[0] == layer["Conv_0.weight"].shape[1]
        return "move" if same and "Conv_2.weight" in layer else "block"
    if set(layer) == {"weight", "bias"}:
        return {1: "norm", 2: "dense", 4: "conv"}.get(layer["weight"].ndim, "unknown")
    return "unknown"


def _ladder(found: Foreign, kinds: list[str], start: int) -> tuple[int, int, list[int], dict[str, int]]:
    """Return (levels, blocks, attended levels, place -> number)."""
    path = "path" in kinds or "combine" in kinds
    moves = kinds.count("move")
    levels = moves // 2 + 1
    blocks, attended, at = 0, [], start + 1
    for level in range(levels):  # the way down as far as the first move tells the blocks of a level
        here = 0
        while at < len(kinds) and kinds[at] in ("block", "attention"):
            if kinds[at] == "attention" and level not in attended:
                attended.append(level)
            here += kinds[at] == "block"
            at += 1
            if blocks and here == blocks and not (at < len(kinds) and kinds[at] == "attention"):
                break
        blocks = blocks or here
        at += 1 + path
    order = _numbers(levels, blocks, attended, start, kinds)
    if moves % 2 or order is None:
        raise ForeignError(
            f"{found.path} is built of blocks that no network here has. Known are BigGAN's residual blocks, with "
            "progressive_input none, residual or input_skip (added), and progressive none or output_skip."
        )
    return levels, blocks, attended, order


def _numbers(levels: int, blocks: int, attended: list[int], start: int, kinds: list[str]) -> dict[str, int] | None:
    """Return where each of our modules stands in the original's list, or None if the list reads otherwise."""
    joins = next((kind for kind in ("path", "combine") if kind in kinds), None)
    sentence: list[tuple[str, str]] = [("conv", "encoder.conv_in")]
    for i in range(levels):
        if i:
            sentence.append(("move", f"encoder.levels.{i}.resample"))
            sentence += [(joins, f"encoder.levels.{i}.path")] if joins else []
        for k in range(blocks):
            sentence.append(("block", f"encoder.levels.{i}.steps.{k}.block"))
            sentence += [("attention", f"encoder.levels.{i}.steps.{k}.attention")] if i in attended else []
    sentence += [("block", "encoder.middle.0.block"), ("attention", "encoder.middle.0.attention")]
    sentence.append(("block", "encoder.middle.1.block"))
    for i in reversed(range(levels)):
        sentence += [("block", f"decoder.levels.{i}.steps.{k}.block") for k in range(blocks + 1)]
        sentence += [("attention", f"decoder.levels.{i}.steps.{blocks}.attention")] if i in attended else []
        if i and kinds.count("norm") > 1:
            sentence += [("norm", f"decoder.levels.{i}.path.norm"), ("conv", f"decoder.levels.{i}.path.conv")]
        sentence += [("move", f"decoder.levels.{i}.resample")] if i else []
    sentence += [("norm", "norm_out"), ("conv", "conv_out")]
    if [kind for kind, _ in sentence] != kinds[start:]:
        return None
    return {place: start + i for i, (_, place) in enumerate(sentence)}


def rename_score_sde(state: State, network: nn.Module, order: Mapping[str, int]) -> dict[str, Tensor]:
    """Translate DDPM++ or NCSN++ of score_sde_pytorch.

    Arguments:
        state: The original state dict.
        network: `networks.songunet` of the same configuration, unlabelled.
        order: Our module -> its number in the original's list.

    Raises:
        ValueError: If a tensor is missing, left over or of another shape.
    """
    first = order["encoder.conv_in"]
    top = {"embedder.dense1": first - 2, "embedder.dense2": first - 1} | dict(order)

    def names(module: str, leaf: str) -> tuple[str, ...]:
        if leaf == "frequencies":
            return ("all_modules.0.W",)
        position = position_of(module)
        if position is None or position.part == "image":
            return (f"all_modules.{top[module]}.{leaf}",)
        owner, layer = module.rsplit(".", 1)
        number = f"all_modules.{order[owner]}"
        if position.kind == "attention":
            inside = {"qkv": ("NIN_0", "NIN_1", "NIN_2"), "out": ("NIN_3",)}.get(layer)
            if inside is not None:
                return tuple(f"{number}.{nin}.{'W' if leaf == 'weight' else 'b'}" for nin in inside)
            return (f"{number}.GroupNorm_0.{leaf}",)
        if position.part == "path":
            stored = "Conv2d_0" if f"{number}.Conv2d_0.{leaf}" in state else "Conv_0"
            return (f"{number}.{stored}.{leaf}",)
        return (f"{number}.{LAYERS[layer]}.{leaf}",)

    def convert(name: str, tensors: tuple[Tensor, ...]) -> Tensor:
        if name.endswith("frequencies"):
            return 2 * math.pi * tensors[0]
        if ".attention." in name and name.endswith((".qkv.weight", ".out.weight")):
            return torch.cat([tensor.T for tensor in tensors])  # the original multiplies from the right
        return torch.cat(tensors)

    return rename(state, network, names, convert, r"^sigmas$")
