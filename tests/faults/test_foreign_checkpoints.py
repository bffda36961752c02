"""P10: hostile and broken checkpoints are refused without a side effect, whatever container they come in."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
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

from sfumato.interop import tensors as reading
from sfumato.interop.foreign import open_foreign
from sfumato.interop.importing import import_run
from sfumato.interop.tensors import ForeignError, Module, read_file

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
