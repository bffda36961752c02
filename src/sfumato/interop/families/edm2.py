"""EDM2: snapshots of NVIDIA's code, a pickled `Precond` around its magnitude-preserving UNet.

Weights of every published length of averaging are a snapshot each, so the average is what is imported. The learned
log-variance belongs to the loss and is left out. Models of latents (a StabilityVAEEncoder beside them) are refused:
their images need a decoder that is not in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.interop.families.edm import checked
from sfumato.interop.foreign import Foreign, Imported, numbered
from sfumato.interop.keys import QKV_LAST, State, order_qkv, rename
from sfumato.interop.tensors import ForeignError, Module
from sfumato.recipes._paper import FID_50K, RAW
from sfumato.runs.recipe import Part, Recipe, Sample, Shape, part

LAYERS = {
    "conv1": "conv_res0",
    "conv2": "conv_res1",
    "modulation": "emb_linear",
    "shortcut": "conv_skip",
    "qkv": "attn_qkv",
    "out": "attn_proj",
    "gain": "emb_gain",
}
TOP = {
    "noise.frequencies": "emb_fourier.freqs",
    "noise.phases": "emb_fourier.phases",
    "dense.weight": "emb_noise.weight",
    "label.weight": "emb_label.weight",
    "conv_out.weight": "out_conv.weight",
    "gain_out": "out_gain",
}


def edm2(found: Foreign) -> Imported | None:
    """Snapshots of EDM2's code in pixels.

    Arguments:
        found: The opened checkpoint.

    Raises:
        ForeignError: For a model of latents, or an option that our network does not have.
    """
    module = found.module
    unet = module.state.get("_modules", {}).get("unet") if module is not None else None
    if module is None or module.kind != "Precond" or not isinstance(unet, Module) or unet.kind != "UNet":
        return None
    encoder = found.content.get("encoder") if isinstance(found.content, dict) else None
    if isinstance(encoder, Module) and encoder.kind != "StandardRGBEncoder":
        raise ForeignError(f"{found.path} makes latents for {encoder.kind}, whose decoder is not in the file.")
    state, options = module.state, dict(unet.state.get("_init_kwargs") or {})
    size, channels = int(state["img_resolution"]), int(state["img_channels"])
    shape = Shape(channels, size, size, numbered(int(state.get("label_dim") or 0)))
    data, line = found.data(shape)
    outer = {"img_resolution": size, "img_channels": channels, "label_dim": len(shape.classes)}
    recipe = Recipe(
        name="imported-edm2",
        data=data,
        network=_network(options, outer),
        draw=part("draw", "lognormal", mean=-0.8, std=1.6),
        objective=part("objective", "uncertainty", label_dropout=0.0),
        sigma_data=float(state["sigma_data"]),
        ema=RAW,
        sample=Sample(part("sampler", "heun"), part("grid", "karras", steps=32)),
        evaluate=FID_50K,
        shape=shape,
    )
    return Imported("edm2", recipe, unet.tensors(), rename_edm2, (line,))


OPTIONS: dict[str, Any] = {
    "model_channels": 192, "channel_mult": (1, 2, 3, 4), "num_blocks": 3, "attn_resolutions": (16, 8),
    "channels_per_head": 64, "label_balance": 0.5, "concat_balance": 0.5, "res_balance": 0.3, "attn_balance": 0.3,
    "dropout": 0.0, "clip_act": 256,
}  # fmt: skip
FIXED: dict[str, Any] = {"resample_filter": [1, 1], "channel_mult_noise": None, "channel_mult_emb": None}


def _network(given: Mapping[str, Any], outer: Mapping[str, Any]) -> Part:
    options = checked(given, OPTIONS, {**FIXED, **outer}, "EDM2 network")
    balance = float(options["res_balance"])
    if float(options["attn_balance"]) != balance:
        raise ForeignError(
            f"An EDM2 network with attn_balance={options['attn_balance']!r} has no network here; only res_balance, "
            f"{balance!r}, has."
        )
    return part(
        "network",
        "edm2",
        width=int(options["model_channels"]),
        mult=tuple(options["channel_mult"]),
        blocks=int(options["num_blocks"]),
        attention=tuple(options["attn_resolutions"]),
        head_width=int(options["channels_per_head"]),
        label_share=float(options["label_balance"]),
        skip_share=float(options["concat_balance"]),
        balance=balance,
        dropout=float(options["dropout"]),
        clip=float(options["clip_act"]),
    )


def rename_edm2(state: State, network: nn.Module) -> dict[str, Tensor]:
    """Translate EDM2's UNet.

    A class layer gains a last column for the null label. Rows are normalised over their columns and multiplied by the
    root of their number, so the column has the root mean square of its row: the classes keep their outputs exactly.
    (The original was trained without dropping labels; the null label means nothing until it is.)

    Arguments:
        state: The original state dict; the prefix "unet." is dropped.
        network: `networks.edm2` of the same configuration.

    Raises:
        ValueError: If a tensor is missing, left over or of another shape.
    """
    state = {name.removeprefix("unet."): tensor for name, tensor in state.items()}
    ways = {"down": _order(state, "enc", "conv"), "up": _order(state, "dec", "in")}
    middle = [name for name in _names(state, "dec") if "_in" in name]
    first = next(name for name in _names(state, "enc") if name.endswith("_conv"))

    def names(module: str, leaf: str) -> tuple[str, ...]:
        whole = f"{module}.{leaf}" if module else leaf
        if whole in TOP:
            return (TOP[whole],)
        if module == "conv_in":
            return (f"enc.{first}.{leaf}",)
        way, number, *layer = whole.split(".")
        block = f"dec.{middle[int(number)]}" if way == "middle" else ways[way][int(number)]
        return (".".join([block, LAYERS[layer[0]], *layer[1:]]),)

    def convert(name: str, tensors: tuple[Tensor, ...]) -> Tensor:
        (tensor,) = tensors
        if name == "label.weight":
            wide = tensor.float()
            return torch.cat((wide, wide.square().mean(dim=1, keepdim=True).sqrt()), dim=1)
        if name.endswith(".qkv.weight"):
            heads = network.get_submodule(name.rsplit(".", 2)[0]).heads
            assert isinstance(heads, int)
            return order_qkv(tensor, QKV_LAST, heads)
        return tensor

    return rename(state, network, names, convert, r"^logvar_")


def _names(state: State, way: str) -> list[str]:
    """Return the names of the blocks of one way, in the order of the file, which is that of the network."""
    return list(dict.fromkeys(name.split(".")[1] for name in state if name.startswith(f"{way}.")))


def _order(state: State, way: str, without: str) -> list[str]:
    return [f"{way}.{name}" for name in _names(state, way) if f"_{without}" not in name]
