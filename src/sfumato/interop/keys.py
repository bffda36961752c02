"""Other projects' state dicts in our names.

The published U-Nets share one topology (`sfumato.networks._ladder`), so a foreign name is a position in the ladder
(down, middle, up; level; step) and a layer in its block. Every function here takes the original state dict and our
network of the same configuration, and returns a state dict for it. Tensors change in four ways only:

    q, k, v         three tensors, or one in the order (heads, qkv, d), (qkv, heads, d) or (heads, d, qkv),
                    become one in the order (qkv, heads, d)
    class tables    gain a last row, the null label: zeros where the original has none (use it only after training with
                    dropped labels), the bias of the label layer where it has one
    1x1 kernels     kept as vectors or matrices become (out, in, 1, 1)
    frequencies     in cycles become radians

A tensor that is missing, left over or of another shape is an error; constants that we compute are ignored by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]

HEADS_FIRST = "heads, qkv, d"  # ADM's default ("legacy") order
QKV_FIRST = "qkv, heads, d"  # ADM's use_new_attention_order, and ours
QKV_LAST = "heads, d, qkv"  # EDM

POSITION = re.compile(
    r"(?:(?P<half>encoder|decoder)\.levels\.(?P<level>\d+)\.(?:steps\.(?P<step>\d+)\.(?P<kind>block|attention)|"
    r"(?P<move>resample|path))|encoder\.middle\.(?P<middle>\d)\.(?P<mkind>block|attention))\.(?P<layer>\w+)"
)


class Position(NamedTuple):
    """Where a layer of the ladder stands.

    Attributes:
        part: One of down, up, middle, halve, double, path and image; halve and path (the image's on the way down) stand
            before `level`, double and image (the image that a level makes on the way up) after it.
        level: Index of the level, finest first; -1 in the middle.
        step: Index of the step within its part.
        kind: One of block, attention and conv (a resampling convolution).
        layer: Name of the layer within its block.
    """

    part: str
    level: int
    step: int
    kind: str
    layer: str


def position_of(module: str) -> Position | None:
    """Return the position of one of our layers, or None if it stands outside the ladder.

    >>> position_of("decoder.levels.1.steps.2.block.conv1")
    Position(part='up', level=1, step=2, kind='block', layer='conv1')
    >>> position_of("encoder.levels.1.resample.conv")
    Position(part='halve', level=1, step=0, kind='conv', layer='conv')
    """
    found = POSITION.fullmatch(module)
    if found is None:
        return None
    layer = found["layer"]
    if found["middle"]:
        return Position("middle", -1, int(found["middle"]), found["mkind"], layer)
    down, level = found["half"] == "encoder", int(found["level"])
    if found["step"]:
        return Position("down" if down else "up", level, int(found["step"]), found["kind"], layer)
    part = {"path": ("image", "path"), "resample": ("double", "halve")}[found["move"]][down]
    return Position(part, level, 0, "conv" if layer == "conv" else "block", layer)


def order_qkv(tensor: Tensor, order: str, heads: int) -> Tensor:
    """Return the rows of a query-key-value tensor in our order (qkv, heads, d)."""
    rows = tensor.shape[0]
    if order == HEADS_FIRST:
        return tensor.reshape(heads, 3, rows // heads // 3, -1).transpose(0, 1).reshape(tensor.shape)
    if order == QKV_LAST:
        return tensor.reshape(heads, rows // heads // 3, 3, -1).permute(2, 0, 1, 3).reshape(tensor.shape)
    return tensor


def null_row(table: Tensor) -> Tensor:
    """Return a class table (classes, width) with a last row of zeros for the null label."""
    return torch.cat((table, torch.zeros_like(table[:1])))


def _sides(tensor: Tensor) -> list[int]:
    """Return a shape without its ones, by which a 1x1 kernel and a matrix differ."""
    return [n for n in tensor.shape if n != 1]


def rename(
    state: State,
    network: nn.Module,
    names: Callable[[str, str], tuple[str, ...]],
    convert: Callable[[str, tuple[Tensor, ...]], Tensor],
    ignored: str = r"(?!)",
) -> dict[str, Tensor]:
    """Return a foreign state dict in our names.

    Arguments:
        state: The original, name -> tensor.
        network: Our network of the same configuration.
        names: (our module, our parameter's name in it) -> the original's names.
        convert: (our name, the original's tensors) -> our tensor, up to sides of 1.
        ignored: Pattern of original names that hold computed constants.

    Raises:
        ValueError: If a tensor is missing, left over, or of another shape.
    """
    left = {name: tensor for name, tensor in state.items() if not re.search(ignored, name)}
    ours, missing = {}, []
    for name, target in network.state_dict().items():
        sources = names(*name.rpartition(".")[::2])
        absent = [source for source in sources if source not in left]
        if absent:
            missing += absent
            continue
        tensor = convert(name, tuple(left.pop(source) for source in sources))
        if _sides(tensor) != _sides(target):
            raise ValueError(
                f"{' + '.join(sources)} gives a tensor {tuple(tensor.shape)}, but {name} is {tuple(target.shape)}: "
                "the network was built with other options than the checkpoint."
            )
        ours[name] = tensor.reshape(target.shape)
    if missing or left:
        kind, which = ("lacks", missing) if missing else ("has left over", list(left))
        raise ValueError(
            f"The state dict {kind} {len(which)} tensors, the first {', '.join(which[:3])}: "
            "the network was built with other options than the checkpoint, or it is of another family."
        )
    return ours


def attention_heads(network: nn.Module, name: str) -> int:
    """Return the number of heads of the attention that owns our parameter `name`."""
    heads = network.get_submodule(name.rsplit(".", 2)[0]).heads
    assert isinstance(heads, int)
    return heads


# DDPM: https://github.com/pesser/pytorch_diffusion, https://github.com/ermongroup/ddim

DDPM_TOP = {
    "embedder.dense1": "temb.dense.0",
    "embedder.dense2": "temb.dense.1",
    "encoder.conv_in": "conv_in",
    "norm_out": "norm_out",
    "conv_out": "conv_out",
}
DDPM_LAYERS = {"modulation": "temb_proj", "shortcut": "nin_shortcut", "out": "proj_out"}


def rename_ddpm(state: State, network: nn.Module) -> dict[str, Tensor]:
    """Translate a DDPM U-Net as PyTorch ports of Ho's code name it (pytorch_diffusion, ddim).

    Arguments:
        state: The original state dict.
        network: `networks.ddpm` of the same configuration, unlabelled.

    Raises:
        ValueError: If a tensor is missing, left over or of another shape.
    """

    def names(module: str, leaf: str) -> tuple[str, ...]:
        position = position_of(module)
        if position is None:
            return (f"{DDPM_TOP.get(module, module)}.{leaf}",)
        part, level, step, kind, layer = position
        if part == "halve":
            return (f"down.{level - 1}.downsample.conv.{leaf}",)
        if part == "double":
            return (f"up.{level}.upsample.conv.{leaf}",)
        if part == "middle":
            prefix = "mid.attn_1" if kind == "attention" else f"mid.block_{step + 1}"
        else:
            prefix = f"{part}.{level}.{'attn' if kind == 'attention' else 'block'}.{step}"
        layers = ("q", "k", "v") if layer == "qkv" else (DDPM_LAYERS.get(layer, layer),)
        return tuple(f"{prefix}.{name}.{leaf}" for name in layers)

    return rename(state, network, names, lambda name, tensors: torch.cat(tensors))


# diffusers: https://github.com/huggingface/diffusers, UNet2DModel

DIFFUSERS_TOP = {
    "embedder.dense1": "time_embedding.linear_1",
    "embedder.dense2": "time_embedding.linear_2",
    "embedder.label.table": "class_embedding",
    "encoder.conv_in": "conv_in",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
}
DIFFUSERS_BLOCK = {"modulation": "time_emb_proj", "shortcut": "conv_shortcut"}
DIFFUSERS_ATTENTION = {"norm": "group_norm", "out": "to_out.0"}


def diffusers_names(network: nn.Module) -> Callable[[str, str], tuple[str, ...]]:
    """Return (our module, our parameter's name in it) -> the names in a UNet2DModel, for a `ddpm` or `adm` network."""
    levels = len(network.get_submodule("encoder.levels"))  # type: ignore[arg-type]

    def names(module: str, leaf: str) -> tuple[str, ...]:
        position = position_of(module)
        if position is None:
            return (f"{DIFFUSERS_TOP.get(module, module)}.{leaf}",)
        part, level, step, kind, layer = position
        if part == "halve":
            return (f"down_blocks.{level - 1}.downsamplers.0.conv.{leaf}",)
        if part == "double":
            return (f"up_blocks.{levels - 1 - level}.upsamplers.0.conv.{leaf}",)
        stage = {"down": f"down_blocks.{level}", "up": f"up_blocks.{levels - 1 - level}", "middle": "mid_block"}[part]
        if kind == "block":
            return (f"{stage}.resnets.{step}.{DIFFUSERS_BLOCK.get(layer, layer)}.{leaf}",)
        layers = ("to_q", "to_k", "to_v") if layer == "qkv" else (DIFFUSERS_ATTENTION[layer],)
        return tuple(f"{stage}.attentions.{step}.{name}.{leaf}" for name in layers)

    return names


def rename_diffusers(state: State, network: nn.Module) -> dict[str, Tensor]:
    """Translate a UNet2DModel of diffusers.

    Arguments:
        state: The original state dict.
        network: `networks.ddpm`, or `networks.adm` with resample="conv", of the same configuration.

    Raises:
        ValueError: If a tensor is missing, left over or of another shape.
    """

    def convert(name: str, tensors: tuple[Tensor, ...]) -> Tensor:
        return null_row(tensors[0]) if name == "embedder.label.table.weight" else torch.cat(tensors)

    return rename(state, network, diffusers_names(network), convert)


# ADM and iDDPM: https://github.com/openai/guided-diffusion, https://github.com/openai/improved-diffusion

ADM_TOP = {
    "embedder.dense1": "time_embed.0",
    "embedder.dense2": "time_embed.2",
    "embedder.label.table": "label_emb",
    "encoder.conv_in": "input_blocks.0.0",
    "norm_out": "out.0",
    "conv_out": "out.2",
}
ADM_BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "modulation": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "shortcut": "skip_connection",
}
ADM_POOLS: dict[str, dict[str, str]] = {  # a tensor that tells the pooling -> our module -> the original's
    "pool.qkv.weight": {"pool.qkv": "out.2.qkv_proj", "pool.out": "out.2.c_proj"},
    "pool.norm.weight": {"pool.dense": "out.0", "pool.norm": "out.1", "pool.out": "out.3"},
    "pool.dense.weight": {"pool.dense": "out.0", "pool.out": "out.2"},
    "pool.out.weight": {"pool.out": "out.3"},
}


def rename_adm(state: State, network: nn.Module, order: str = HEADS_FIRST) -> dict[str, Tensor]:
    """Translate a U-Net or classifier of guided-diffusion or improved-diffusion.

    Arguments:
        state: The original state dict.
        network: `networks.adm` or `networks.adm_classifier` of the same configuration.
        order: HEADS_FIRST, or QKV_FIRST for networks built with use_new_attention_order.

    Raises:
        ValueError: If a tensor is missing, left over or of another shape.
    """
    if order not in (HEADS_FIRST, QKV_FIRST):
        raise ValueError(f"ADM's attention has the order {HEADS_FIRST!r} or {QKV_FIRST!r}; got {order!r}.")
    ours = network.state_dict()
    levels = network.get_submodule("encoder.levels")
    depth, run = len(levels), len(levels.get_submodule("0.steps")) + 1  # type: ignore[arg-type]
    attends = {name.rsplit(".", 2)[0] for name in ours if name.endswith("attention.qkv.weight")}
    top = ADM_TOP | next((pool for tensor, pool in ADM_POOLS.items() if tensor in ours), {})

    def names(module: str, leaf: str) -> tuple[str, ...]:
        position = position_of(module)
        if position is None:
            if module == "pool":  # of attention, whose positions are a tensor of its own
                return ("out.2.positional_embedding",)
            return (f"{top.get(module, module)}.{leaf}",)
        part, level, step, kind, layer = position
        if part == "middle":
            prefix = f"middle_block.{1 if kind == 'attention' else 2 * step}"
        elif part == "halve":
            prefix = f"input_blocks.{level * run}.0"
        elif part == "down":
            prefix = f"input_blocks.{level * run + step + 1}.{int(kind == 'attention')}"
        elif part == "up":
            prefix = f"output_blocks.{(depth - 1 - level) * run + step}.{int(kind == 'attention')}"
        else:
            last = run - 1
            after = 1 + (f"decoder.levels.{level}.steps.{last}.attention" in attends)
            prefix = f"output_blocks.{(depth - 1 - level) * run + last}.{after}"
        if kind == "conv":
            return (f"{prefix}.{'op' if part == 'halve' else 'conv'}.{leaf}",)
        if kind == "attention":
            return (f"{prefix}.{'proj_out' if layer == 'out' else layer}.{leaf}",)
        return (f"{prefix}.{ADM_BLOCK[layer]}.{leaf}",)

    def convert(name: str, tensors: tuple[Tensor, ...]) -> Tensor:
        (tensor,) = tensors
        if name == "embedder.label.table.weight":
            return null_row(tensor)
        if ".attention.qkv." in name:
            return order_qkv(tensor, order, attention_heads(network, name))
        return tensor

    return rename(state, network, names, convert)


# EDM: https://github.com/NVlabs/edm, SongUNet and DhariwalUNet

EDM_BLOCK = {
    "norm1": "norm0",
    "conv1": "conv0",
    "modulation": "affine",
    "norm2": "norm1",
    "conv2": "conv1",
    "shortcut": "skip",
}
EDM_ATTENTION = {"norm": "norm2", "qkv": "qkv", "out": "proj"}
EDM_CONSTANTS = r"resample_filter$|^u$"


def _rename_edm(state: State, network: nn.Module, top: Mapping[str, str]) -> dict[str, Tensor]:
    """Translate what SongUNet and DhariwalUNet have in common; `top` names the last two layers."""
    state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    sides = sorted({int(found[1]) for name in state if (found := re.match(r"(?:enc|dec)\.(\d+)x", name))}, reverse=True)
    levels = len(network.get_submodule("encoder.levels"))  # type: ignore[arg-type]
    if len(sides) != levels:
        raise ValueError(f"The state dict has {len(sides)} levels, sides {sides}; the network has {levels}.")
    outer = {
        "embedder.dense1": "map_layer0",
        "embedder.dense2": "map_layer1",
        "embedder.augment": "map_augment",
        "encoder.conv_in": f"enc.{sides[0]}x{sides[0]}_conv",
    } | {ours: theirs.format(side=f"{sides[0]}x{sides[0]}") for ours, theirs in top.items()}
    has_bias = "map_label.bias" in state

    def names(module: str, leaf: str) -> tuple[str, ...]:
        position = position_of(module)
        if position is None:
            if module == "embedder.label.table":
                return ("map_label.weight", "map_label.bias") if has_bias else ("map_label.weight",)
            if leaf == "frequencies":
                return ("map_noise.freqs",)
            return (f"{outer.get(module, module)}.{leaf}",)
        part, level, step, kind, layer = position
        side = sides[level - 1 if part == "double" else level]
        kinds = {"halve": "down", "double": "up", "path": "aux_residual", "middle": f"in{step}"}
        half = "enc" if part in ("down", "halve", "path") else "dec"
        place = f"{half}.{side}x{side}"
        if part == "path" and f"{place}_aux_skip.weight" in state:
            return (f"{place}_aux_skip.{leaf}",)
        if part == "image":
            return (f"{place}_aux_{layer}.{leaf}",)
        prefix = f"{place}_{kinds.get(part, f'block{step}')}"
        if kind == "conv":
            return (f"{prefix}.{leaf}",)
        return (f"{prefix}.{(EDM_ATTENTION if kind == 'attention' else EDM_BLOCK)[layer]}.{leaf}",)

    def convert(name: str, tensors: tuple[Tensor, ...]) -> Tensor:
        tensor = tensors[0]
        if name == "embedder.label.table.weight":
            if len(tensors) == 1:
                return null_row(tensor.T)
            # the original multiplies the one-hot label by sqrt(classes); without a label its bias remains
            return null_row(tensor.T * math.sqrt(tensor.shape[1])) + tensors[1]
        if name.endswith("frequencies"):
            return 2 * math.pi * tensor
        if ".attention.qkv." in name:
            return order_qkv(tensor, QKV_LAST, attention_heads(network, name))
        return tensor

    return rename(state, network, names, convert, EDM_CONSTANTS)


def rename_songunet(state: State, network: nn.Module) -> dict[str, Tensor]:
    """Translate EDM's SongUNet (DDPM++, NCSN++), bare or inside a preconditioner.

    Arguments:
        state: The original state dict; the prefix "model." is dropped.
        network: `networks.songunet` of the same configuration.

    Raises:
        ValueError: If a tensor is missing, left over or of another shape.
    """
    return _rename_edm(state, network, {"norm_out": "dec.{side}_aux_norm", "conv_out": "dec.{side}_aux_conv"})


def rename_dhariwal(state: State, network: nn.Module) -> dict[str, Tensor]:
    """Translate EDM's DhariwalUNet (its ADM), bare or inside a preconditioner.

    Arguments:
        state: The original state dict; the prefix "model." is dropped.
        network: `networks.adm` of the same configuration with group_width=4; bridge=False and attention=() for widths
            below 64, where the original has no heads.

    Raises:
        ValueError: If a tensor is missing, left over or of another shape.
    """
    return _rename_edm(state, network, {"norm_out": "out_norm", "conv_out": "out_conv"})
