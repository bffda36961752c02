"""Our networks against the outputs and gradients of the original implementations, with the same weights.

The tolerance is 1e-5 of the largest value: an epsilon of 1e-5 for 1e-6 in a normalisation already moves it by 3e-5.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfumato.interop.keys import (
    HEADS_FIRST,
    QKV_FIRST,
    rename_adm,
    rename_ddpm,
    rename_dhariwal,
    rename_diffusers,
    rename_songunet,
)
from sfumato.networks._layers import GroupNorm
from sfumato.networks.adm import adm
from sfumato.networks.adm_classifier import adm_classifier
from sfumato.networks.ddpm import ddpm
from sfumato.networks.songunet import songunet

from .measured import Error
from .weights import raw, state_dict

DATA = Path(__file__).parent / "data"
GOLD = np.load(DATA / "C_networks.npz", allow_pickle=False)
CASES: dict[str, dict[str, Any]] = json.loads((DATA / "manifest_C.json").read_text())["cases"]
TOLERANCE = 1e-5


def gold(case: str, name: str) -> Tensor:
    return torch.from_numpy(GOLD[f"{case}/{name}"])


def error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return Error((ours.detach().double() - theirs.double()).abs().max() / theirs.double().abs().max())


def build_adm(c: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    network = adm(
        c["in_channels"],
        c["out_channels"],
        c["num_classes"] or 0,
        c["image_size"],
        c["model_channels"],
        tuple(c["channel_mult"]),
        c["num_res_blocks"],
        tuple(c["image_size"] // factor for factor in c["attention_resolutions"]),
        c["num_heads"],
        max(0, c["num_head_channels"]),
        adaptive=c["use_scale_shift_norm"],
        resample="block" if c["resblock_updown"] else "conv",
    )
    network.load_state_dict(rename_adm(state, network, QKV_FIRST if c["use_new_attention_order"] else HEADS_FIRST))
    return network


def build_classifier(c: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    network = adm_classifier(
        c["in_channels"],
        c["out_channels"],
        c["image_size"],
        c["model_channels"],
        tuple(c["channel_mult"]),
        c["num_res_blocks"],
        tuple(c["image_size"] // factor for factor in c["attention_resolutions"]),
        c["num_heads"],
        c["num_head_channels"],
        c["use_scale_shift_norm"],
        "block" if c["resblock_updown"] else "conv",
        pool={"attention": "attention", "adaptive": "mean"}[c["pool"]],
    )
    network.load_state_dict(rename_adm(state, network))
    return network


def build_edm(c: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    channels, size, width, mult = c["img_channels"], c["img_resolution"], c["model_channels"], tuple(c["channel_mult"])
    out = channels * (2 if c["precond"] == "iDDPMPrecond" else 1)
    attention, augments = tuple(c["attn_resolutions"]), c.get("augment_dim", 0)
    common = (channels, out, c["label_dim"], size, width, mult, c["num_blocks"])
    if c["model_type"] == "DhariwalUNet":
        assert width * max(mult) < 64  # fewer channels than one head: the original leaves attention out
        network: nn.Module = adm(*common, (), bridge=False, group_width=4, augments=augments)
        network.load_state_dict(rename_dhariwal(state, network))
        return network
    network = songunet(
        *common,
        attention,
        fourier=c["embedding_type"] == "fourier",
        taps=tuple(c["resample_filter"]),
        image_path=c["encoder_type"] == "residual",
        augments=augments,
    )
    network.load_state_dict(rename_songunet(state, network))
    return network


def build_ddpm(c: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    network = ddpm(
        c["in_channels"],
        c["out_ch"],
        0,
        c["resolution"],
        c["ch"],
        tuple(c["ch_mult"]),
        c["num_res_blocks"],
        tuple(c["attn_resolutions"]),
    )
    network.load_state_dict(rename_ddpm(state, network))
    return network


def build_diffusers(c: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    widths, size = c["block_out_channels"], c["sample_size"]
    attended = tuple(size >> i for i, kind in enumerate(c["down_block_types"]) if kind.startswith("Attn"))
    network = ddpm(
        c["in_channels"],
        c["out_channels"],
        0,
        size,
        widths[0],
        tuple(w // widths[0] for w in widths),
        c["layers_per_block"],
        attended,
        groups=c["norm_num_groups"],
    )
    network.load_state_dict(rename_diffusers(state, network))
    return network


BUILDERS = {
    "guided-diffusion UNetModel": build_adm,
    "guided-diffusion EncoderUNetModel": build_classifier,
    "pesser/pytorch_diffusion Model": build_ddpm,
    "diffusers 0.42.1 UNet2DModel": build_diffusers,
    "NVlabs/edm": build_edm,
}


def network_of(case: str) -> nn.Module:
    described = CASES[case]
    build = next(build for start, build in BUILDERS.items() if described["network"].startswith(start))
    return build(described["config"], state_dict(described["state_dict"], **described["weights_rule"])).eval()


def sigma_table() -> Tensor:
    """Return iDDPM's noise levels u_0 > ... > u_1000 = 0 as EDM computes them, in float64."""
    steps, c1, c2 = 1000, 0.001, 0.008

    def bar(j: int) -> float:
        return math.sin(0.5 * math.pi * j / steps / (c2 + 1)) ** 2

    u = [0.0] * (steps + 1)
    for j in range(steps, 0, -1):
        u[j - 1] = math.sqrt((u[j] ** 2 + 1) / max(bar(j - 1) / bar(j), c1) - 1)
    return torch.tensor(u, dtype=torch.float64)


def coefficients(precond: str, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return c_skip, c_out, c_in, c_noise of EDM's four preconditioners, in the type of sigma."""
    one = torch.ones_like(sigma)
    if precond == "EDMPrecond":
        total = sigma**2 + 0.5**2
        return 0.5**2 / total, sigma * 0.5 / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4
    if precond == "VPPrecond":
        t = ((0.1**2 + 2 * 19.9 * (1 + sigma**2).log()).sqrt() - 0.1) / 19.9
        return one, -sigma, 1 / (sigma**2 + 1).sqrt(), 999 * t
    if precond == "VEPrecond":
        return one, sigma, one, (0.5 * sigma).log()
    nearest = (sigma.double()[:, None] - sigma_table()).abs().argmin(dim=1)
    return one, -sigma, 1 / (sigma**2 + 1).sqrt(), (999 - nearest).to(sigma.dtype)


def run(case: str, network: nn.Module, x: Tensor, augment: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return what the original returns (D for EDM's cases), and F."""
    config = CASES[case]["config"]
    if "precond" not in config:
        label = (gold(case, "y"),) if f"{case}/y" in GOLD else ()
        raw_output = network(x, gold(case, "t"), *label)
        return raw_output, raw_output
    sigma = gold(case, "sigma").to(x.dtype)
    label = gold(case, "class_labels").argmax(dim=1) if f"{case}/class_labels" in GOLD else None
    c_skip, c_out, c_in, c_noise = coefficients(config["precond"], sigma)
    more = (augment.to(x.dtype),) if augment is not None else ()
    f = network(c_in[:, None, None, None] * x, c_noise, label, *more)
    return c_skip[:, None, None, None] * x + c_out[:, None, None, None] * f[:, : x.shape[1]], f


def test_weight_rule_check_numbers():
    assert raw("fc.weight", 3, seed=3).tolist() == [528052441924481656, 10895968907251065483, 3839918077378998852]


@pytest.mark.parametrize("case", CASES)
def test_output_and_gradient_match_the_original(case: str):
    network, x = network_of(case), gold(case, "x").requires_grad_()
    augment = gold(case, "augment_labels") if f"{case}/augment_labels" in GOLD else None
    out, f = run(case, network, x, augment)
    assert error(out, gold(case, "out")) < TOLERANCE
    if f"{case}/F_raw" in GOLD:
        assert error(f, gold(case, "F_raw")) < TOLERANCE
    if f"{case}/probe" in GOLD:
        (grad,) = torch.autograd.grad((out * gold(case, "probe")).sum(), x)
        assert error(grad, gold(case, "grad_x")) < TOLERANCE
    if f"{case}/out_no_augment" in GOLD:
        assert error(run(case, network, x)[0], gold(case, "out_no_augment")) < TOLERANCE
        assert error(run(case, network, x, torch.zeros_like(augment))[0], gold(case, "out_no_augment")) < TOLERANCE


@pytest.mark.parametrize("case", [case for case in CASES if f"{case}/out_float64" in GOLD])
def test_double_precision_is_closer_than_single(case: str):
    """In float64 what remains is the original's own float32 embedding (and preconditioning)."""
    out, _ = run(case, network_of(case).double(), gold(case, "x").double())
    assert error(out, gold(case, "out_float64")) < 2e-6


@pytest.mark.parametrize("case", [case for case in CASES if "parameters" in CASES[case]])
def test_parameter_count_is_the_original_plus_the_null_label(case: str):
    config = CASES[case]["config"]
    null = 0
    if config.get("num_classes"):
        null = 4 * config["model_channels"]
    elif config.get("label_dim") and config["model_type"] == "DhariwalUNet":
        null = 4 * config["model_channels"]  # SongUNet's bias of the label layer is its null label
    shapes, kept = CASES[case]["state_dict"], CASES[case]["weights_rule"]["kept"]
    # EDM's own count contains its constants: filters and Fourier frequencies
    constants = sum(math.prod(shape) for name, shape in shapes.items() if name in kept or name.endswith("freqs"))
    ours = sum(p.numel() for p in network_of(case).parameters())
    assert ours == CASES[case]["parameters"] - constants + null


def test_the_tolerance_sees_a_wrong_epsilon():
    network = network_of("edm_ddpmpp")
    for module in network.modules():
        if isinstance(module, GroupNorm):
            module.eps = 1e-5
    out, _ = run("edm_ddpmpp", network, gold("edm_ddpmpp", "x"))
    assert error(out, gold("edm_ddpmpp", "out")) > TOLERANCE


def test_the_tolerance_sees_a_wrong_attention_order():
    described = CASES["adm_legacy_heads4"]
    state = state_dict(described["state_dict"], **described["weights_rule"])
    network = build_adm(described["config"] | {"use_new_attention_order": True}, state).eval()
    out, _ = run("adm_legacy_heads4", network, gold("adm_legacy_heads4", "x"))
    assert error(out, gold("adm_legacy_heads4", "out")) > 0.1
