"""The JiT network against outputs and gradients of its authors' file, with the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.networks.jit import JiT, jit

from .measured import Error
from .weights import state_dict

DATA = Path(__file__).parent / "data"
GOLD = np.load(DATA / "G_jit.npz", allow_pickle=False)
CASES: dict[str, dict[str, Any]] = json.loads((DATA / "G_jit.json").read_text())["cases"]
TOLERANCE = 1e-5
NAMES = (
    ("t_embedder.mlp.0", "noise.1"),
    ("t_embedder.mlp.2", "noise.3"),
    ("y_embedder.embedding_table", "label.table"),
    ("x_embedder.proj1", "squeeze"),
    ("x_embedder.proj2", "embed"),
    ("in_context_posemb", "context_position"),
    ("final_layer.norm_final", "norm_out"),
    ("final_layer.linear", "out"),
    ("final_layer.adaLN_modulation.1", "modulation_out"),
    ("adaLN_modulation.1", "modulation"),
    ("attn.q_norm", "norm_q"),
    ("attn.k_norm", "norm_k"),
    ("attn.qkv", "qkv"),
    ("attn.proj", "out"),
    ("mlp.w12", "gated"),
    ("mlp.w3", "last"),
)


def gold(case: str, name: str) -> Tensor:
    return torch.from_numpy(GOLD[f"{case}/{name}"])


def error(ours: Tensor, theirs: Tensor) -> float:
    return Error((ours.detach().double() - theirs.double()).abs().max() / theirs.double().abs().max())


def network_of(case: str) -> JiT:
    described = CASES[case]
    c = described["config"]
    network = jit(
        c["in_channels"],
        c["in_channels"],
        c["num_classes"],
        c["input_size"],
        c["patch_size"],
        c["hidden_size"],
        c["depth"],
        c["num_heads"],
        bottleneck=c["bottleneck_dim"],
        context=c["in_context_len"],
        context_from=c["in_context_start"],
    )
    weights = {}
    for name, value in state_dict(described["state_dict"], described["seed"], described["gain"]).items():
        if name not in described["kept"]:
            for theirs, ours in NAMES:
                name = name.replace(theirs, ours)
            weights[name] = value.flatten(1) if value.ndim == 4 else value
    network.load_state_dict(weights)
    return network.eval()


def test_the_weights_are_those_of_the_file():
    for described in CASES.values():
        weights = state_dict(described["state_dict"], described["seed"], described["gain"])
        for name, first in described["first_values"].items():
            assert weights[name].flatten()[:4].tolist() == first


@pytest.mark.parametrize("case", CASES)
def test_output_and_gradient_match_the_original(case: str):
    x = gold(case, "x").requires_grad_()
    out = network_of(case)(x, gold(case, "t"), labels(case))
    assert error(out, gold(case, "out")) < TOLERANCE
    (grad,) = torch.autograd.grad((out * gold(case, "probe")).sum(), x)
    assert error(grad, gold(case, "grad_x")) < TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_double_precision_differs_by_the_original_s_single_precision_norms_only(case: str):
    out = network_of(case).double()(gold(case, "x").double(), gold(case, "t").double(), labels(case))
    assert error(out, gold(case, "out_float64")) < 2e-6


def labels(case: str) -> Tensor:
    """Return the labels with -1 for the original's row K, no class."""
    label = gold(case, "y").long()
    return torch.where(label == CASES[case]["config"]["num_classes"], -1, label)


@pytest.mark.parametrize("case", CASES)
def test_parameter_count_is_the_original_without_its_fixed_table(case: str):
    shape = CASES[case]["state_dict"]["pos_embed"]
    fixed = shape[1] * shape[2]
    assert sum(p.numel() for p in network_of(case).parameters()) == CASES[case]["parameters"] - fixed


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"width": 768, "depth": 12, "heads": 12, "bottleneck": 128, "context_from": 4}, 131_123_712),
        ({"width": 1024, "depth": 24, "heads": 16, "bottleneck": 128, "context_from": 8}, 458_877_664),
        ({"width": 1280, "depth": 32, "heads": 16, "bottleneck": 256, "context_from": 10}, 952_514_368),
    ],
)
def test_published_sizes(options: dict[str, int], count: int):
    with torch.device("meta"):
        network = jit(3, 3, 1000, 256, 16, context=32, **options)
    assert sum(p.numel() for p in network.parameters()) == count


def test_the_tolerance_sees_a_missing_rotation(monkeypatch: pytest.MonkeyPatch):
    case = "jit_32_rgb_plain"
    monkeypatch.setattr("sfumato.networks.jit.rotated", lambda x, cos, sin: x)
    out = network_of(case)(gold(case, "x"), gold(case, "t"), labels(case))
    assert error(out, gold(case, "out")) > 1e-2
