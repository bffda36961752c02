"""Renaming other projects' state dicts: nothing is lost, nothing is guessed."""

from __future__ import annotations

import pytest
import torch

from sfumato.interop.keys import HEADS_FIRST, QKV_FIRST, QKV_LAST, order_qkv, rename_adm, rename_ddpm
from sfumato.networks.ddpm import ddpm


def small() -> torch.nn.Module:
    return ddpm(size=8, width=32, mult=(1,), blocks=1, attention=())


def foreign(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Write the small network's own weights in the original's names, by hand."""
    ours = network.state_dict()
    names = {
        "embedder.dense1": "temb.dense.0",
        "embedder.dense2": "temb.dense.1",
        "encoder.conv_in": "conv_in",
        "norm_out": "norm_out",
        "conv_out": "conv_out",
        "encoder.middle.0.attention.norm": "mid.attn_1.norm",
        "encoder.middle.0.attention.out": "mid.attn_1.proj_out",
    }
    blocks = {
        "encoder.levels.0.steps.0.block": "down.0.block.0",
        "encoder.middle.0.block": "mid.block_1",
        "encoder.middle.1.block": "mid.block_2",
        "decoder.levels.0.steps.0.block": "up.0.block.0",
        "decoder.levels.0.steps.1.block": "up.0.block.1",
    }
    layers = {"modulation": "temb_proj", "shortcut": "nin_shortcut"}
    theirs = {}
    for name, tensor in ours.items():
        module, leaf = name.rsplit(".", 1)
        if module.endswith("attention.qkv"):
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                theirs[f"mid.attn_1.{part}.{leaf}"] = rows
        elif module in names:
            theirs[f"{names[module]}.{leaf}"] = tensor
        else:
            block, layer = module.rsplit(".", 1)
            theirs[f"{blocks[block]}.{layers.get(layer, layer)}.{leaf}"] = tensor
    return theirs


def test_round_trip_by_hand():
    network = small()
    back = rename_ddpm(foreign(network), network)
    for name, tensor in network.state_dict().items():
        assert torch.equal(back[name], tensor)


def test_missing_left_over_and_misshapen_tensors_are_errors():
    network = small()
    state = foreign(network)
    lacking = {name: tensor for name, tensor in state.items() if name != "mid.attn_1.k.bias"}
    with pytest.raises(ValueError, match=r"lacks 1 tensors, the first mid\.attn_1\.k\.bias"):
        rename_ddpm(lacking, network)
    with pytest.raises(ValueError, match="left over 1 tensors, the first extra"):
        rename_ddpm(state | {"extra": torch.zeros(1)}, network)
    with pytest.raises(ValueError, match="other options"):
        rename_ddpm(state | {"conv_out.bias": torch.zeros(6)}, network)
    with pytest.raises(ValueError, match="order"):
        rename_adm(state, network, QKV_LAST)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_orders_place_every_row(heads):
    d = 3
    rows = torch.tensor([[(k * heads + h) * d + i] for k in range(3) for h in range(heads) for i in range(d)])
    cube = rows.reshape(3, heads, d)
    assert torch.equal(order_qkv(rows, QKV_FIRST, heads), rows)
    assert torch.equal(order_qkv(cube.permute(1, 0, 2).reshape(-1, 1), HEADS_FIRST, heads), rows)
    assert torch.equal(order_qkv(cube.permute(1, 2, 0).reshape(-1, 1), QKV_LAST, heads), rows)
    assert order_qkv(rows[:, 0], HEADS_FIRST, heads).shape == (9 * heads,)
