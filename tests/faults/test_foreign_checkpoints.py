"""P10: hostile and broken checkpoints are refused without a side effect, whatever container they come in."""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import re
import shutil
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sfumato.interop import tensors as reading
from sfumato.interop.foreign import open_foreign
from sfumato.interop.importing import import_run
from sfumato.interop.schedulers import read_scheduler
from sfumato.interop.tensors import ForeignError, Module, read_file
from sfumato.runs.recipe import Shape
from sfumato.runs.run import Run

from ..interop.snapshots import EDM_LIKE, edm_snapshot


class Evil:
    """Reduce to a call of anything."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call = call, args

    def __reduce__(self) -> Any:
        return self.call


def state(**more: Any) -> dict[str, Any]:
    return {"conv_in.weight": torch.arange(12.0).reshape(2, 6), **more}


def bare(path: Path, value: Any) -> Path:
    path.write_bytes(pickle.dumps(value))
    return path


def archive(path: Path, value: Any) -> Path:
    """torch's zip archive around any pickle."""
    torch.save({"w": torch.zeros(3)}, path)
    with zipfile.ZipFile(path) as file:
        entries = {e.filename: file.read(e) for e in file.infolist()}
    inner = next(n for n in entries if n.endswith("data.pkl"))
    entries[inner] = pickle.dumps(value, protocol=2)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def legacy(path: Path, value: Any) -> Path:
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    path.write_bytes(b"".join(pickle.dumps(v, protocol=2) for v in (*head, value, [])))
    return path


def embedded(path: Path, value: Any) -> Path:
    """A snapshot with a storage whose bytes are a pickle of their own."""
    inner = io.BytesIO()
    pickle.dump(value, inner)
    return bare(path, {"ema": Evil(torch.storage._load_from_bytes, inner.getvalue())})


def module_state(path: Path, value: Any) -> Path:
    module = torch.nn.Identity()
    module.__dict__["hidden"] = value
    return bare(path, {"ema": module})


CONTAINERS = [bare, archive, legacy, embedded, module_state]


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("kind", ["os.system", "eval", "exec", "import", "write", "numpy", "torch.load"])
def test_a_call_is_refused_and_not_made(container: Callable[..., Path], kind: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    line = f"open({str(trace)!r}, 'w').close()"
    evil = {
        "os.system": Evil(os.system, f"touch {trace}"),
        "eval": Evil(eval, line),
        "exec": Evil(exec, line),
        "import": Evil(__import__, "antigravity"),
        "write": Evil(Path.touch, trace),
        "numpy": Evil(np.save, str(trace), np.zeros(1)),
        "torch.load": Evil(torch.load, str(trace)),
    }[kind]
    file = container(tmp_path / "evil.pt", {"conv_in.weight": evil})
    with pytest.raises(ForeignError, match="is refused|embedded storage"):
        read_file(file)
    with pytest.raises(ForeignError):
        import_run(file, tmp_path / "run")
    assert not trace.exists() and not (tmp_path / "run").exists()


def test_python_itself_would_have_run_it(tmp_path: Path) -> None:
    """The files above are loaded guns: Python's own reader fires."""
    trace = tmp_path / "trace"
    file = bare(tmp_path / "evil.pkl", Evil(os.system, f"touch {trace}"))
    pickle.loads(file.read_bytes())
    assert trace.exists()


def test_module_source_of_a_snapshot_stays_text(tmp_path: Path) -> None:
    config, tensors = EDM_LIKE
    file = edm_snapshot(tmp_path / "s.pkl", config, tensors)
    found = read_file(file)
    assert isinstance(found["ema"], Module) and found["ema"].kind == "EDMPrecond"
    assert not file.with_suffix(".trace").exists()
    assert b"write_text" in file.read_bytes()  # the source is there, and was not run


@pytest.mark.parametrize("name", ["BUILD of a class", "BUILD of a name", "INST", "EXT", "persistent", "dictionary key"])
def test_odd_opcodes_are_refused(name: str, tmp_path: Path) -> None:
    content = {
        "BUILD of a class": b"ccollections\nOrderedDict\n(dNu}b.",
        "BUILD of a name": b"ctorch\nfloat32\n}b.",
        "INST": b"(S'touch /tmp/x'\nios\nsystem\n.",
        "EXT": b"\x82\x01.",
        "persistent": b"P0\n.",
        "dictionary key": b"\x80\x02}(ccollections\nOrderedDict\nK\x01u.",
    }[name]
    file = tmp_path / "odd.pkl"
    file.write_bytes(content)
    with pytest.raises(ForeignError):
        read_file(file)


def test_depth_opcodes_and_sizes_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "deep.pkl"
    deep.write_bytes(b"\x80\x02" + b"]" + b"\x85" * 20_000 + b".")
    began = time.monotonic()
    with pytest.raises(ForeignError, match="deep"):
        read_file(deep)
    marks = tmp_path / "marks.pkl"
    marks.write_bytes(b"\x80\x02" + b"(" * 10_000 + b".")
    with pytest.raises(ForeignError, match="200 containers"):
        read_file(marks)
    own = tmp_path / "own.pkl"  # a list that contains itself
    own.write_bytes(b"\x80\x02]q\x00h\x00a.")
    with pytest.raises(ForeignError, match="contains itself"):
        read_file(own)
    monkeypatch.setattr("sfumato.data.pickles.MAX_OPCODES", 1000)
    long = tmp_path / "long.pkl"
    long.write_bytes(b"\x80\x02" + b"N0" * 5000 + b"N.")
    with pytest.raises(ForeignError, match="more than 1,000 opcodes"):
        read_file(long)
    monkeypatch.setattr(reading, "MAX_FILE", 10)
    with pytest.raises(ForeignError, match="files above 10 are refused"):
        read_file(long)
    assert time.monotonic() - began < 10


def test_doublings_cost_nothing(tmp_path: Path) -> None:
    """A list of two references to a list of two references ...: 2^60 entries if anyone walked them."""
    parts, at = [b"\x80\x02]q\x00"], 0
    for i in range(1, 60):
        parts.append(b"]q" + bytes([i]) + b"(h" + bytes([at]) + b"h" + bytes([at]) + b"e")
        at = i
    file = tmp_path / "laughs.pkl"
    file.write_bytes(b"".join(parts[:1]) + b"0" + b"0".join(parts[1:]) + b".")
    pickletools.dis(file.read_bytes(), out=io.StringIO())
    began = time.monotonic()
    read_file(file)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((10**9,), (0,), 0),
        ((7,), (1,), 0),
        ((2,), (1,), 5),
        ((2,), (-1,), 1),
        ((2**40, 2**40), (0, 0), 0),
        ((2.0,), (1,), 0),
    ],
)
def test_a_tensor_is_a_window_on_its_own_storage(size: Any, stride: Any, offset: int, tmp_path: Path) -> None:
    storage = torch.arange(6.0)
    file = tmp_path / "w.pt"
    torch.save({"w": storage}, file)
    with zipfile.ZipFile(file) as old:
        entries = {e.filename: old.read(e) for e in old.infolist()}

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", 6) if value is storage else None

    buffer = io.BytesIO()
    forged = Evil(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())
    Pickler(buffer, protocol=2).dump({"w": forged})
    with zipfile.ZipFile(file, "w") as new:
        for name, content in entries.items():
            new.writestr(name, buffer.getvalue() if name.endswith("data.pkl") else content)
    with pytest.raises(ForeignError, match="with what does not fit"):
        read_file(file)


def repacked(path: Path, change: Callable[[zipfile.ZipFile, str, bytes], None]) -> Path:
    torch.save(state(), path)
    with zipfile.ZipFile(path) as old:
        entries = [(e.filename, old.read(e)) for e in old.infolist()]
    with zipfile.ZipFile(path, "w") as new:
        for name, content in entries:
            change(new, name, content)
    return path


def test_zip_tricks_are_refused(tmp_path: Path) -> None:
    def compressed(new: zipfile.ZipFile, name: str, content: bytes) -> None:
        new.writestr(name, content, zipfile.ZIP_DEFLATED)

    def short(new: zipfile.ZipFile, name: str, content: bytes) -> None:
        new.writestr(name, content[:-4] if "/data/" in name else content)

    def without(new: zipfile.ZipFile, name: str, content: bytes) -> None:
        if "/data/" not in name:
            new.writestr(name, content)

    def script(new: zipfile.ZipFile, name: str, content: bytes) -> None:
        new.writestr(name, content)
        if name.endswith("data.pkl"):
            new.writestr(name.replace("data.pkl", "code/__torch__.py"), "import os")

    def twice(new: zipfile.ZipFile, name: str, content: bytes) -> None:
        new.writestr(name, content)
        if name.endswith("data.pkl"):
            with pytest.warns(UserWarning, match="Duplicate"):
                new.writestr(name, content)

    for change, reason in (
        (compressed, "compressed"),
        (short, "bytes where"),
        (without, "lacks its storage"),
        (script, "TorchScript"),
        (twice, "appears twice"),
    ):
        with pytest.raises(ForeignError, match=reason):
            read_file(repacked(tmp_path / "t.pt", change))
    whole = tmp_path / "whole.pt"
    torch.save(state(), whole)
    damaged = bytearray(whole.read_bytes())
    at = damaged.find(np.arange(12, dtype="<f4").tobytes())
    damaged[at + 20] ^= 1
    whole.write_bytes(damaged)
    with pytest.raises(ForeignError, match="CRC"):
        read_file(whole)
    whole.write_bytes(damaged[: len(damaged) // 2])
    with pytest.raises(ForeignError, match="not a readable archive"):
        read_file(whole)


def test_old_format_with_a_false_length_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "old.pt"
    torch.save(state(), file, _use_new_zipfile_serialization=False)
    content = file.read_bytes()
    assert torch.equal(read_file(file)["conv_in.weight"], state()["conv_in.weight"])
    file.write_bytes(content[:-4])
    with pytest.raises(ForeignError, match="cut short"):
        read_file(file)
    file.write_bytes(content[:-56] + struct.pack("<q", 1 << 40) + content[-48:])
    with pytest.raises(ForeignError, match="does not have the length"):
        read_file(file)


def test_random_damage_is_an_error_or_harmless(tmp_path: Path) -> None:
    """Change bytes anywhere: the reader may refuse or return, and never raises anything else."""
    config, tensors = EDM_LIKE
    content = edm_snapshot(tmp_path / "s.pkl", config, {k: v[:1] for k, v in list(tensors.items())[:6]}).read_bytes()
    draw = np.random.Generator(np.random.Philox(3))
    refused = 0
    for _ in range(120):
        changed = bytearray(content)
        for at in draw.integers(0, min(len(content), 3000), 3):
            changed[at] = draw.integers(0, 256)
        (tmp_path / "d.pkl").write_bytes(changed)
        try:
            read_file(tmp_path / "d.pkl")
        except ForeignError:
            refused += 1
    assert refused > 30
    assert not list(tmp_path.glob("*.trace"))


@pytest.mark.parametrize("format", ["zip", "old", "pickle"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
def test_honest_files_read_as_torch_reads_them(format: str, dtype: torch.dtype, tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(1)
    base = torch.rand(4, 6, generator=g).mul(3).to(dtype)
    value: dict[str, Any] = {
        "a": base,
        "transposed": base.T,
        "window": base[1:3, ::2],
        "empty": base[:0],
        "number": base[0, 0],
        "nested": OrderedDict(p=torch.nn.Parameter(base.float())),
        "plain": [1, 2.5, "x", None, (True, b"y")],
    }
    file = tmp_path / "f.pt"
    if format == "pickle":
        file.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, file, _use_new_zipfile_serialization=format == "zip")
    found = read_file(file)
    for name in ("a", "transposed", "window", "empty", "number"):
        assert found[name].dtype == dtype and torch.equal(found[name], value[name])
    assert torch.equal(found["nested"]["p"], value["nested"]["p"])
    assert found["plain"] == value["plain"]


def test_numpy_values_and_foreign_configuration_files(tmp_path: Path) -> None:
    value = {"f": np.float64(0.25), "i": np.int64(-3), "a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    found = read_file(bare(tmp_path / "n.pkl", value))
    assert (found["f"], found["i"]) == (0.25, -3) and np.array_equal(found["a"], value["a"])
    with pytest.raises(ForeignError, match="numbers of type"):
        read_file(bare(tmp_path / "o.pkl", {"a": np.array([None])}))
    folder = tmp_path / "unet"
    folder.mkdir()
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(ForeignError, match="nested too deeply"):
        open_foreign(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ForeignError, match="has no diffusion_pytorch_model"):
        open_foreign(folder)
    (tmp_path / "bad.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(ForeignError, match="not a readable safetensors"):
        open_foreign(tmp_path / "bad.safetensors")


def unet_folder(path: Path, change: Callable[[torch.Tensor], torch.Tensor] = lambda t: t, **config: Any) -> Path:
    """A small UNet2DModel as diffusers lays it out, its tensors changed."""
    from sfumato.interop.exports.diffusers import foreign_state
    from sfumato.networks.ddpm import ddpm

    path.mkdir(parents=True)
    network = ddpm(1, 1, size=8, width=32, mult=(1,), blocks=1, attention=())
    (path / "config.json").write_text(json.dumps(UNET | config))
    tensors = {name: change(tensor).contiguous() for name, tensor in foreign_state(network).items()}
    save_file(tensors, path / "diffusion_pytorch_model.safetensors")
    return path


UNET: dict[str, Any] = {
    "_class_name": "UNet2DModel",
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "down_block_types": ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"],
    "block_out_channels": [32],
    "layers_per_block": 1,
    "downsample_padding": 0,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
    "freq_shift": 1,
    "flip_sin_to_cos": False,
}


def test_weights_that_are_no_numbers_or_whole_numbers_are_refused(tmp_path: Path) -> None:
    nan = unet_folder(tmp_path / "nan", lambda t: torch.where(t == t.flatten()[0], torch.nan, t))
    with pytest.raises(ForeignError, match="values that are not finite"):
        import_run(nan, tmp_path / "run")
    whole = unet_folder(tmp_path / "int8", lambda t: t.to(torch.int8))
    with pytest.raises(ForeignError, match="holds int8: quantised weights are not read"):
        import_run(whole, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "key", ["brand_new", "act_fn", "downsample_padding", "resnet_time_scale_shift", "upsample_type"]
)
def test_a_network_with_a_key_that_is_not_built_is_refused_by_name(key: str, tmp_path: Path) -> None:
    with pytest.raises(ForeignError, match=key):
        import_run(unet_folder(tmp_path / "u", **{key: 7}), tmp_path / "run")


def test_variants_and_shards_are_read_and_an_index_names_its_own_folder_only(tmp_path: Path) -> None:
    whole = import_run(unet_folder(tmp_path / "whole"), tmp_path / "a").run.network().state_dict()
    half = unet_folder(tmp_path / "half", lambda t: t.half())
    file = half / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    file.rename(half / "diffusion_pytorch_model.fp16.safetensors")
    made = import_run(half, tmp_path / "b")
    assert any("fp16" in note for note in made.found.notes) and any(
        "became float32" in note for note in made.found.notes
    )
    assert made.run.network().state_dict().keys() == whole.keys()
    (half / "diffusion_pytorch_model.fp16.safetensors").unlink()
    names = list(tensors)
    shards = {"part-1.safetensors": names[:5], "part-2.safetensors": names[5:]}
    for shard, inside in shards.items():
        save_file({name: tensors[name] for name in inside}, half / shard)
    index = half / "diffusion_pytorch_model.safetensors.index.json"
    where = {name: shard for shard, inside in shards.items() for name in inside}
    index.write_text(json.dumps({"weight_map": where}))
    assert "the weights of 2 shards" in import_run(half, tmp_path / "c").found.notes
    save_file(tensors, tmp_path / "away.safetensors")
    for wrong, reason in (
        ({**where, names[0]: "../away.safetensors"}, "no file of weights beside it"),
        ({**where, names[0]: "part-2.safetensors"}, "do not hold the same tensors"),
        ({**where, "spare": "part-3.safetensors"}, "no file of weights beside it"),
        ({}, "has no weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(ForeignError, match=reason):
            import_run(half, tmp_path / "d")


def test_an_average_beside_the_weights_is_named_and_taken_on_request(tmp_path: Path) -> None:
    unet_folder(tmp_path / "p" / "unet")
    unet_folder(tmp_path / "p" / "unet_ema", lambda t: t + 1, decay=0.9999, optimization_step=3)
    plain, averaged = (import_run(tmp_path / "p", tmp_path / name, ema=name == "ema") for name in ("raw", "ema"))
    assert any("--ema takes it" in note for note in plain.found.notes)
    assert "the average of the weights, unet_ema/" in averaged.found.notes
    a, b = (made.run.network().state_dict()["conv_out.bias"] for made in (plain, averaged))
    assert torch.allclose(b, a + 1)
    with pytest.raises(ForeignError, match="has no unet_ema"):
        import_run(unet_folder(tmp_path / "alone"), tmp_path / "x", ema=True)


def test_a_pipeline_of_latents_is_no_model_of_pixels(tmp_path: Path) -> None:
    unet_folder(tmp_path / "p" / "unet")
    parts = {"_class_name": "LDMPipeline", "unet": ["diffusers", "UNet2DModel"], "vqvae": ["diffusers", "VQModel"]}
    (tmp_path / "p" / "model_index.json").write_text(json.dumps(parts))
    with pytest.raises(ForeignError, match="vqvae beside its U-Net"):
        import_run(tmp_path / "p", tmp_path / "run")


CLASSES: dict[str, tuple[dict[str, Any], str, str]] = {  # model_index.json -> the sampler that walks, and what is said
    "as the folder says": ({"_class_name": "DDPMPipeline"}, "ancestral", ""),
    "a pipeline that makes its own": ({"_class_name": "DDIMPipeline"}, "ddim", "DDPMScheduler .* is a DDIMScheduler"),
    "another class": ({"scheduler": ["diffusers", "PNDMScheduler"]}, "pndm", "DDPMScheduler .* is a PNDMScheduler"),
    "a pipeline of its own": ({"_class_name": "MyPipeline"}, "ancestral", "MyPipeline .* is not known"),
}


@pytest.mark.parametrize("case", CLASSES)
def test_the_class_of_a_scheduler_is_that_of_the_pipeline(case: str, tmp_path: Path) -> None:
    """diffusers makes the class that model_index.json names, whatever scheduler_config.json says."""
    index, sampler, said = CLASSES[case]
    folder = tmp_path / "pipe"
    unet_folder(folder / "unet")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "DDPMScheduler"}')
    (folder / "model_index.json").write_text(json.dumps(index))
    made = import_run(folder, tmp_path / "run")
    assert made.run.recipe.sample.sampler.name == sampler
    told = [line for line in made.found.assumed if line.startswith("sample")]
    assert re.search(said, told[0]) if said else not told


def test_a_pipeline_that_makes_another_network_of_the_folder_is_refused(tmp_path: Path) -> None:
    unet_folder(tmp_path / "pipe" / "unet")
    (tmp_path / "pipe" / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DConditionModel"]}')
    with pytest.raises(ForeignError, match="makes a UNet2DConditionModel of unet/"):
        import_run(tmp_path / "pipe", tmp_path / "run")


def test_a_matrix_lying_on_its_side_is_of_another_shape(tmp_path: Path) -> None:
    folder = unet_folder(tmp_path / "unet", lambda t: t.T if t.ndim == 2 and len(set(t.shape)) == 2 else t)
    with pytest.raises(ForeignError, match=r"linear_1.weight gives a tensor \(32, 128\), but .* is \(128, 32\)"):
        import_run(folder, tmp_path / "run")


def test_two_names_of_one_tensor_are_refused(tmp_path: Path) -> None:
    torch.save({"module.conv_in.weight": torch.zeros(2), "conv_in.weight": torch.ones(2)}, tmp_path / "both.pt")
    with pytest.raises(ForeignError, match="both module.conv_in.weight and conv_in.weight, which are two names of one"):
        import_run(tmp_path / "both.pt", tmp_path / "run")


def test_what_a_person_says_of_a_folder_fits_it_or_is_refused(tmp_path: Path) -> None:
    folder = unet_folder(tmp_path / "unet")
    assert import_run(folder, tmp_path / "run", size=8).run.recipe.shape == Shape(1, 8, 8, ())
    with pytest.raises(ForeignError, match="make images of side 8; got --size 16"):
        import_run(folder, tmp_path / "other", size=16)
    for option in ({"raw": True}, {"order": "new"}):
        with pytest.raises(ForeignError, match=f"is of diffusers, where --{[*option][0]} has nothing to choose"):
            import_run(folder, tmp_path / "other", **option)
    with pytest.raises(ForeignError, match="do not fit: network=unet is laid out otherwise"):
        import_run(folder, tmp_path / "other", recipe="edm-digits")
    (folder / "config.json").write_text(json.dumps(UNET | {"block_out_channels": [0]}))
    with pytest.raises(ForeignError, match="looks like diffusers, but its tensors or options do not fit"):
        import_run(folder, tmp_path / "other")


WALKS: dict[str, dict[str, Any]] = {
    "clip_sample_range=0 has no recipe here; it is positive": {"clip_sample": True, "clip_sample_range": 0},
    "clip_sample_range=-1 has no recipe here": {"clip_sample": True, "clip_sample_range": -1},
    "trained_betas must be 2 numbers": {"trained_betas": [True, True], "num_train_timesteps": 2},
    "more than the 4.2e-09 of the step before": {
        "_class_name": "EulerDiscreteScheduler",
        "rescale_betas_zero_snr": True,
    },
}


@pytest.mark.parametrize("reason", WALKS)
def test_a_walk_that_means_nothing_is_refused(reason: str) -> None:
    with pytest.raises(ForeignError, match=reason):
        read_scheduler({"_class_name": "DDIMScheduler", "prediction_type": "sample", **WALKS[reason]}, False)


def test_nothing_that_is_not_a_number_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.interop.exporting import export_run
    from sfumato.runs import checkpoint

    run = import_run(unet_folder(tmp_path / "u"), tmp_path / "run").run
    weights = {**run.network().state_dict()}
    weights["conv_out.bias"] = torch.full_like(weights["conv_out.bias"], torch.nan)
    state = {**run.checkpoint.state, "step": 1}
    with pytest.raises(checkpoint.CheckpointError, match="conv_out.bias of network is not finite"):
        checkpoint.save(run.path / "checkpoints", 1, {"network": weights}, state)
    monkeypatch.setattr(checkpoint, "not_finite", lambda *_: "")  # as if an earlier version had saved it
    checkpoint.save(run.path / "checkpoints", 1, {"network": weights}, state)
    monkeypatch.undo()
    shutil.rmtree(run.path / "checkpoints" / "step-0")  # else that one is taken
    for format in ("safetensors", "onnx", "diffusers"):
        with pytest.raises(ValueError, match="conv_out.bias .* not finite"):
            export_run(Run.open(run.path), format, tmp_path / format)
        assert not (tmp_path / format).exists()
