"""Every family of checkpoints becomes a run that gives the original's output, to the golden numbers' tolerance."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sfumato.core.level import Level
from sfumato.interop.foreign import open_foreign
from sfumato.interop.importing import Import, import_run, recognise
from sfumato.interop.tensors import ForeignError
from sfumato.runs.recipe import RecipeError
from sfumato.runs.run import Run

from ..parity.weights import state_dict
from .snapshots import edm2_snapshot, edm_snapshot

PARITY = Path(__file__).parent.parent / "parity" / "data"
GOLD = dict(np.load(PARITY / "C_networks.npz", allow_pickle=False))
CASES: dict[str, dict[str, Any]] = json.loads((PARITY / "manifest_C.json").read_text())["cases"]
OWN = Path(__file__).parent / "data"
EDM2: dict[str, dict[str, Any]] = json.loads((OWN / "edm2.json").read_text())["cases"]
MORE: dict[str, dict[str, Any]] = json.loads((OWN / "golden.json").read_text())["cases"]  # make_golden.py
GOLD |= dict(np.load(OWN / "edm2.npz", allow_pickle=False)) | dict(np.load(OWN / "golden.npz", allow_pickle=False))
TOLERANCE = 1e-5


def gold(case: str, name: str) -> Tensor:
    return torch.from_numpy(GOLD[f"{case}/{name}"])


def weights(case: str) -> dict[str, Tensor]:
    described = (CASES | EDM2 | MORE)[case]
    return state_dict(described["state_dict"], **described["weights_rule"])


def write(case: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write a case as its project stores it; return the file and what an importer must be told beside it."""
    config = (CASES | EDM2)[case]["config"]
    if case in EDM2:
        return edm2_snapshot(folder / f"{case}.pkl", config, weights(case), "StandardRGBEncoder"), {}
    if "precond" in config:
        return edm_snapshot(folder / f"{case}.pkl", config, weights(case)), {}
    if "down_block_types" in config:
        save_file(weights(case), folder / "diffusion_pytorch_model.safetensors")
        (folder / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel", **config}))
        return folder, {}
    file = folder / f"{case}.pt"
    torch.save(weights(case), file)
    told: dict[str, Any] = {"size": 16}
    if "num_heads" in config:
        heads = (f"network.heads={config['num_heads']}", f"network.head_width={max(0, config['num_head_channels'])}")
        told |= {"overrides": heads, "order": "new" if config["use_new_attention_order"] else None}
    return file, told


def imported(case: str, folder: Path) -> Import:
    (folder / "original").mkdir()
    file, told = write(case, folder / "original")
    return import_run(file, folder / "run", **told)


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("case", [c for c in CASES if "precond" not in CASES[c]["config"]])
def test_networks_of_discrete_chains_keep_their_output(case: str, tmp_path: Path) -> None:
    network = imported(case, tmp_path).run.network()
    label = (gold(case, "y"),) if f"{case}/y" in GOLD else ()
    assert error(network(gold(case, "x"), gold(case, "t"), *label), gold(case, "out")) < TOLERANCE


@pytest.mark.parametrize("case", [*(c for c in CASES if "precond" in CASES[c]["config"] and "iDDPM" not in c), *EDM2])
def test_snapshots_keep_their_denoiser_and_their_code_stays_unread(case: str, tmp_path: Path) -> None:
    run = imported(case, tmp_path).run
    sigma = gold(case, "sigma").double()
    label = gold(case, "class_labels").argmax(1) if f"{case}/class_labels" in GOLD else None
    label = gold(case, "label") if f"{case}/label" in GOLD else label
    out = run.denoiser()(gold(case, "x"), Level(torch.ones_like(sigma), sigma), label).x0
    wanted = "out_no_augment" if f"{case}/out_no_augment" in GOLD else "out"
    assert error(out, gold(case, wanted)) < TOLERANCE
    assert not list(tmp_path.rglob("*.trace"))


def test_iddpm_snapshot_keeps_its_output_at_its_own_levels(tmp_path: Path) -> None:
    """The original rounds only what it tells the network; here a level is one of the chain, so F is compared."""
    case = "edm_iDDPMPrecond"
    denoiser = imported(case, tmp_path).run.denoiser()
    asked = gold(case, "sigma").double()
    near = denoiser.snap(Level(torch.ones_like(asked), asked))
    c_in, x = 1 / (asked**2 + 1).sqrt(), gold(case, "x")
    f = denoiser.network((c_in[:, None, None, None] * x).float(), denoiser.c_noise(near).float())[:, :3]
    assert error(x - asked[:, None, None, None].float() * f, gold(case, "out")) < TOLERANCE


def score_sde_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Write EDM's NCSN++ of two levels with one block each in score_sde_pytorch's numbers, by a table made by hand."""
    numbers = {
        "enc.16x16_conv": 3,
        "enc.16x16_block0": 4,
        "enc.8x8_down": 5,
        "enc.8x8_aux_residual": 6,
        "enc.8x8_block0": 7,
        "dec.8x8_in0": 9,
        "dec.8x8_in1": 11,
        "dec.8x8_block0": 12,
        "dec.8x8_block1": 13,
        "dec.16x16_up": 15,
        "dec.16x16_block0": 16,
        "dec.16x16_block1": 17,
        "dec.16x16_aux_norm": 18,
        "dec.16x16_aux_conv": 19,
    }
    attention = {"enc.8x8_block0": 8, "dec.8x8_in0": 10, "dec.8x8_block1": 14}
    layers = {
        "norm0": "GroupNorm_0",
        "conv0": "Conv_0",
        "affine": "Dense_0",
        "norm1": "GroupNorm_1",
        "conv1": "Conv_1",
        "skip": "Conv_2",
    }
    made = {"module.all_modules.0.W": tensors["model.map_noise.freqs"]}
    for name, tensor in tensors.items():
        _, head, *rest = name.split(".")
        if head in ("map_layer0", "map_layer1"):
            made[f"module.all_modules.{1 + int(head[-1])}.{rest[-1]}"] = tensor
        elif head in ("enc", "dec") and not name.endswith("resample_filter"):
            block, leaf = f"{head}.{rest[0]}", rest[-1]
            layer = rest[1] if len(rest) == 3 else ""
            if layer == "qkv":
                channels = tensor.shape[0] // 3
                for i in range(3):
                    rows = tensor.reshape(channels, 3, -1)[:, i]
                    value = rows.T.contiguous() if leaf == "weight" else rows.flatten()
                    made[f"module.all_modules.{attention[block]}.NIN_{i}.{'W' if leaf == 'weight' else 'b'}"] = value
            elif layer == "proj":
                value = tensor.flatten(1).T.contiguous() if leaf == "weight" else tensor
                made[f"module.all_modules.{attention[block]}.NIN_3.{'W' if leaf == 'weight' else 'b'}"] = value
            elif layer == "norm2":
                made[f"module.all_modules.{attention[block]}.GroupNorm_0.{leaf}"] = tensor
            elif block.endswith("aux_residual"):
                made[f"module.all_modules.{numbers[block]}.Conv2d_0.{leaf}"] = tensor
            else:
                inside = f"{layers[layer]}." if layer else ""
                made[f"module.all_modules.{numbers[block]}.{inside}{leaf}"] = tensor
    return dict(sorted(made.items(), key=lambda pair: int(pair[0].split(".")[2])))


@pytest.mark.parametrize("averaged", [False, True])
def test_score_sde_checkpoint_keeps_its_denoiser(averaged: bool, tmp_path: Path) -> None:
    case = "edm_VEPrecond"
    model = score_sde_names(weights(case))
    learned = [name for name in model if not name.endswith(".W") or "all_modules.0." not in name]
    checkpoint: dict[str, Any] = {"optimizer": {"state": {0: {"step": 3}}, "param_groups": []}, "step": 7}
    model["module.sigmas"] = torch.linspace(50, 0.01, 1000)
    if averaged:  # the weights proper are then of no use
        shadow = [model[name].clone() for name in learned]
        model |= {name: torch.full_like(model[name], 9.0) for name in learned}
        checkpoint |= {"ema": {"decay": 0.999, "num_updates": 7, "shadow_params": shadow}}
    file = tmp_path / "checkpoint_24.pth"
    torch.save({**checkpoint, "model": model}, file)
    made = import_run(file, tmp_path / "run", size=16)
    assert made.run.recipe.schedule.options == {"sigma_min": pytest.approx(0.02), "sigma_max": 100.0}
    sigma = gold(case, "sigma").double()
    out = made.run.denoiser()(gold(case, "x"), Level(torch.ones_like(sigma), sigma)).x0
    assert error(out, gold(case, "out")) < TOLERANCE
    if averaged:
        with pytest.raises(AssertionError):
            raw = import_run(file, tmp_path / "raw", size=16, raw=True).run.network()
            assert torch.equal(raw.state_dict()["conv_out.bias"], made.run.network().state_dict()["conv_out.bias"])


@pytest.mark.parametrize("change", ["left over", "missing", "another shape"])
@pytest.mark.parametrize("case", ["adm_full", "edm_ddpmpp", "ddpm_model", "edm2_cond"])
def test_what_does_not_fit_is_refused_and_nothing_is_written(case: str, change: str, tmp_path: Path) -> None:
    tensors = weights(case)
    name = next(n for n in reversed(list(tensors)) if n.endswith("weight") and "logvar" not in n)
    if change == "left over":
        tensors[f"{name.rsplit('.', 1)[0]}.spare"] = torch.zeros(3)
    elif change == "missing":
        del tensors[name]
    else:
        tensors[name] = torch.zeros(*tensors[name].shape, 2)
    config = (CASES | EDM2)[case]["config"]
    file = tmp_path / "changed.pkl"
    if case in EDM2:
        edm2_snapshot(file, config, tensors)
    elif "precond" in config:
        edm_snapshot(file, config, tensors)
    else:
        torch.save(tensors, file)
    size = None if case in EDM2 else 16
    with pytest.raises(ForeignError, match="do not fit|cannot be told apart"):
        import_run(file, tmp_path / "run", size=size, overrides=["network.heads=2"] if case == "adm_full" else [])
    assert not (tmp_path / "run").exists()


def test_assumptions_are_told_until_they_are_settled(tmp_path: Path) -> None:
    file, told = write("adm_legacy_heads4", tmp_path)
    said = " ".join(import_run(file, tmp_path / "a", size=16).found.assumed)
    assert "4 heads" in said and "schedule=linear" in said and "legacy order" in said and "data.name=" in said
    settled = ["network.heads=4", "schedule=cosine", "schedule.steps=4000", "data.name=cifar10"]
    run = import_run(file, tmp_path / "b", size=16, order="legacy", overrides=settled)
    assert run.found.assumed == ()
    assert run.run.recipe.schedule.options["steps"] == 4000
    assert json.loads((tmp_path / "b" / "recipe.json").read_text())["imported"]["family"] == "adm"


def test_a_named_recipe_replaces_what_was_inferred(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sfumato.cli import main

    file, _ = write("ddpm_model", tmp_path)
    fields = ["network.width=32", "network.mult=1,1", "network.blocks=1", "network.attention=8"]
    fields += ["shape.height=16", "shape.width=16"]
    command = ["import", str(file), "--recipe"]
    assert main([*command, "ddpm-cifar10", "--out", str(tmp_path / "run"), *fields]) == 0
    assert "assumed" not in capsys.readouterr().out
    run = Run.open(tmp_path / "run")
    assert run.recipe.name == "ddpm-cifar10" and run.recipe.data.name == "cifar10"
    out = run.network()(gold("ddpm_model", "x"), gold("ddpm_model", "t"))
    assert error(out, gold("ddpm_model", "out")) < TOLERANCE
    for other in ("ddpm-cifar10", "v-digits", "no-such"):
        assert main([*command, other, "--out", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("case", ["edm_ddpmpp", "edm2_cond"])
def test_snapshots_in_half_precision_become_single_and_say_so(case: str, tmp_path: Path) -> None:
    config, rounded = (CASES | EDM2)[case]["config"], {n: t.half() for n, t in weights(case).items()}
    snapshot = edm2_snapshot if case in EDM2 else edm_snapshot
    half = import_run(snapshot(tmp_path / "half.pkl", config, rounded), tmp_path / "half")
    single = {n: t.float() for n, t in rounded.items()}
    same = import_run(snapshot(tmp_path / "single.pkl", config, single), tmp_path / "single")
    assert any(re.fullmatch(r"\d+ tensors of float16 became float32", note) for note in half.found.notes)
    assert not any("float16" in note for note in same.found.notes)
    a, b = half.run.network().state_dict(), same.run.network().state_dict()
    assert all(t.dtype == torch.float32 for t in a.values() if t.is_floating_point())
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_is_not_overwritten_and_a_stranger_is_named(tmp_path: Path) -> None:
    file, told = write("ddpm_model", tmp_path)
    import_run(file, tmp_path / "run", **told)
    with pytest.raises(RecipeError, match="holds a run already"):
        import_run(file, tmp_path / "run", **told)
    save_file({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(ForeignError, match=r"of no family that is known \(adm, .*begins with layer.weight"):
        import_run(tmp_path / "other.safetensors", tmp_path / "x")
    with pytest.raises(ForeignError, match="There is no file"):
        import_run(tmp_path / "nowhere.pt", tmp_path / "x")


def test_published_files_are_known_by_name(tmp_path: Path) -> None:
    """Only the first tensors are needed to see which recipe a published file belongs to."""
    tensors = weights("adm_cond_headch")
    torch.save(tensors, tmp_path / "64x64_diffusion.pt")
    found = recognise(open_foreign(tmp_path / "64x64_diffusion.pt"))
    assert found.recipe.name == "adm-imagenet64" and found.assumed == ()
    torch.save(tensors, tmp_path / "cifar10_uncond_50M_500K.pt")
    assert recognise(open_foreign(tmp_path / "cifar10_uncond_50M_500K.pt")).recipe.schedule.options["steps"] == 4000


def test_models_of_latents_and_upsamplers_are_refused(tmp_path: Path) -> None:
    config = EDM2["edm2_uncond"]["config"]
    file = edm2_snapshot(tmp_path / "latent.pkl", config, weights("edm2_uncond"), "StabilityVAEEncoder")
    with pytest.raises(ForeignError, match="makes latents for StabilityVAEEncoder"):
        import_run(file, tmp_path / "run")
    tensors = weights("adm_full")
    tensors["input_blocks.0.0.weight"] = torch.zeros(32, 6, 3, 3)
    torch.save(tensors, tmp_path / "up.pt")
    with pytest.raises(ForeignError, match="upsampler"):
        import_run(tmp_path / "up.pt", tmp_path / "run")


def test_the_command_prints_recipe_and_assumptions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sfumato.cli import main

    file, _ = write("edm_ddpmpp", tmp_path)
    assert main(["import", str(file), "--out", str(tmp_path / "run"), "sample.grid.steps=3"]) == 0
    out = capsys.readouterr().out
    assert "songunet" in out and "assumed: data.name=" in out and "189,347 parameters, all placed" in out
    picture = tmp_path / "sheet.png"
    assert main(["sample", str(tmp_path / "run"), "--n", "2", "--out", str(picture)]) == 0
    assert picture.stat().st_size > 500
    assert main(["import", str(tmp_path / "no.pt")]) == 2


MOVES = re.compile(r"(down|up)sample\.conv\.|input_blocks\.\d+\.0\.op\.|output_blocks\.\d+\.\d\.conv\.")
WITH_MOVES = [c for c in CASES if any(MOVES.search(name) for name in weights(c))]


@pytest.mark.parametrize("case", WITH_MOVES)
def test_resampling_without_weights_is_recognised(case: str, tmp_path: Path) -> None:
    """DDPM's resamp_with_conv=False and ADM's conv_resample=False: no tensor stands where the side changes."""
    _, told = write(case, tmp_path)
    left = {name: tensor for name, tensor in weights(case).items() if not MOVES.search(name)}
    torch.save(left, tmp_path / "bare.pt")
    run = import_run(tmp_path / "bare.pt", tmp_path / "run", **told).run
    assert run.recipe.network.options["resample"] == "mean"
    asked: list[tuple[int, int]] = []
    network = run.network()
    for module in network.modules():
        if type(module).__name__ == "Plain":
            module.register_forward_hook(lambda _, x, y: asked.append((x[0].shape[-1], y.shape[-1])))
    label = (gold(case, "y"),) if f"{case}/y" in GOLD else ()
    assert network(gold(case, "x"), gold(case, "t"), *label).isfinite().all()
    assert asked and {a / b for a, b in asked} <= {2.0, 0.5}


@pytest.mark.parametrize("case", [c for c in MORE if MORE[c]["kind"] == "classifier"])
def test_classifiers_that_read_the_means_of_all_layers_keep_their_output(case: str, tmp_path: Path) -> None:
    torch.save(weights(case), tmp_path / "classifier.pt")
    heads = ("network.heads=1", "network.head_width=32")
    run = import_run(tmp_path / "classifier.pt", tmp_path / "run", size=16, overrides=heads).run
    assert run.recipe.network.options["pool"] == {"classifier_spatial": "spatial"}.get(case, "spatial-norm")
    assert error(run.network()(gold(case, "x"), gold(case, "number")), gold(case, "out")) < TOLERANCE


@pytest.mark.parametrize("case", [c for c in MORE if MORE[c]["kind"] == "edm"])
def test_snapshots_with_an_image_on_every_level_keep_their_denoiser(case: str, tmp_path: Path) -> None:
    file = edm_snapshot(tmp_path / "s.pkl", MORE[case]["config"], weights(case))
    sigma = gold(case, "number").double()
    level = Level(torch.ones_like(sigma), sigma)
    out = import_run(file, tmp_path / "run").run.denoiser()(gold(case, "x"), level, None).x0
    assert error(out, gold(case, "out")) < TOLERANCE


@pytest.mark.parametrize("case", [c for c in MORE if MORE[c]["kind"] == "score"])
def test_ncsnpp_of_score_sde_keeps_its_score(case: str, tmp_path: Path) -> None:
    """The original's output is F / sigma; the images of its golden numbers are centred, so sigma is not doubled."""
    model = {f"module.{name}": tensor for name, tensor in weights(case).items()}
    model["module.sigmas"] = torch.linspace(50, 0.01, 100)
    torch.save({"model": model, "step": 7}, tmp_path / "score.pth")
    network = import_run(tmp_path / "score.pth", tmp_path / "run", size=16).run.network()
    sigma = gold(case, "number")
    out = network(gold(case, "x"), sigma.log()) / sigma[:, None, None, None]
    assert error(out, gold(case, "out")) < TOLERANCE


def test_ncsnpp_with_concatenated_image_paths_is_refused(tmp_path: Path) -> None:
    """progressive_combine=cat doubles the channels after every combination, which no tensor of ours has."""
    tensors = weights("score_skip_skip")
    (combined,) = [
        n.split(".")[1] for n, t in tensors.items() if n.endswith("Conv_0.weight") and t.shape == (16, 3, 1, 1)
    ]
    after = f"all_modules.{int(combined) + 1}."
    for name in [n for n in tensors if n.startswith(after) and n.endswith(("GroupNorm_0.weight", "GroupNorm_0.bias"))]:
        tensors[name] = torch.cat((tensors[name], tensors[name]))
    torch.save({"model": tensors | {"sigmas": torch.linspace(50, 0.01, 100)}}, tmp_path / "cat.pth")
    with pytest.raises(ForeignError, match="do not fit"):
        import_run(tmp_path / "cat.pth", tmp_path / "run", size=16)


@pytest.mark.parametrize("factor", [2, 4])
def test_edms_adm_keeps_the_length_of_its_embedding(factor: int, tmp_path: Path) -> None:
    case = next(c for c in CASES if "precond" in CASES[c]["config"] and "Dhariwal" in str(CASES[c]["config"]))
    config, tensors = dict(CASES[case]["config"]), weights(case)
    width = tensors["model.map_layer0.weight"].shape[1]
    if factor != 4:
        keep = factor * width
        tensors["model.map_layer0.weight"] = tensors["model.map_layer0.weight"][:keep]
        tensors["model.map_layer1.weight"] = tensors["model.map_layer1.weight"][:keep, :keep]
        for name in [n for n in tensors if n.startswith("model.map_layer") and n.endswith("bias")]:
            tensors[name] = tensors[name][:keep]
        for name in [n for n in tensors if n.endswith("affine.weight")]:
            tensors[name] = tensors[name][:, :keep]
        if "model.map_label.weight" in tensors:
            tensors["model.map_label.weight"] = tensors["model.map_label.weight"][:keep]
        config["channel_mult_emb"] = factor
    made = import_run(edm_snapshot(tmp_path / "s.pkl", config, tensors), tmp_path / "run")
    assert made.run.recipe.network.options.get("embedding", 4) == factor


def test_an_imported_checkpoint_is_a_parent(tmp_path: Path) -> None:
    """Fine-tuning begins from its very weights, known by place where its classes have numbers only."""
    from dataclasses import replace

    from sfumato.runs.plan import plan
    from sfumato.runs.recipe import Shape
    from sfumato.training.start_from import inherited, parent_of, starting_weights

    case = next(c for c in CASES if "precond" in CASES[c]["config"] and f"{c}/class_labels" in GOLD)
    run = imported(case, tmp_path).run
    assert run.recipe.shape is not None
    count = len(run.recipe.shape.classes)
    theirs = run.network().state_dict()
    table = next(name for name in theirs if name.endswith("label.table.weight"))
    for names in (tuple("abcdefghijklmnop")[:count], ("one",)):
        shape = replace(run.recipe.shape, classes=names)
        asked = replace(run.recipe, shape=shape, sigma_data=None, train=replace(run.recipe.train, start=str(run.path)))
        parent = parent_of(asked)
        assert parent is not None and isinstance(shape, Shape)
        child = inherited(replace(asked, sigma_data=0.3), asked, parent.run.recipe)
        assert child.sigma_data == run.recipe.sigma_data
        found = starting_weights(plan(child), parent)
        assert all(torch.equal(found[name], theirs[name]) for name in theirs if name != table)
        rows = theirs[table] if len(names) == count else torch.stack((theirs[table][:-1].mean(0), theirs[table][-1]))
        assert torch.equal(found[table], rows)
