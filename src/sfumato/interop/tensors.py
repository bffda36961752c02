"""Tensors from inert pickles: what the allowed names mean, and nothing else.

`data.pickles` reads a checkpoint's pickle without calling anything. Here the few calls that are data are carried out
by our own code: a tensor is a checked window on the bytes of a storage, an ordered dictionary is a dictionary, a NumPy
scalar is a number. A module, and an object of NVIDIA's `persistent_class` (which carries its own source code), become a
`Module`: a class name and a state. Their code is neither compiled nor looked at.

Three containers are read: torch's zip archive (since 1.6), torch's older sequence of pickles, and a plain pickle whose
storages are embedded in the older format. Tensors never take more bytes than the file has.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from sfumato.core.archives import opened
from sfumato.core.reading import read_bytes
from sfumato.data import pickles
from sfumato.data.pickles import Call, Name, Reference
from sfumato.data.unpickle import ARRAYS, MAX_DEPTH, Decoder

MAX_FILE = 16 << 30
"""The largest file that is read: 16 GiB."""
MAX_INDEX = 64 << 20
"""The largest pickle inside a torch archive: 64 MiB; tensors lie beside it."""
MAX_ENTRIES = 100_000
"""The most storages of an archive."""
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
MODULES = re.compile(r"torch\.nn\.modules\.\w+")


class ForeignError(ValueError):
    """A foreign checkpoint that is unsafe, damaged or of a kind we do not know."""


def read_pickle(stream: BinaryIO, what: str) -> Any:
    """Read one pickle of a checkpoint; arguments and errors as in `data.pickles.read_pickle`."""
    return pickles.read_pickle(stream, allowed, what, ForeignError)


@dataclass(frozen=True, eq=False)
class Module:
    """Stand for an object whose class is foreign: its name and what was set on it.

    Attributes:
        kind: Name of the class.
        state: Values that were set on it, by attribute.
    """

    kind: str
    state: Mapping[str, Any]

    def tensors(self, prefix: str = "", depth: int = 0) -> dict[str, Tensor]:
        """Return the state dict of a torch module: parameters and buffers by their dotted names."""
        if depth > MAX_DEPTH:
            raise ForeignError("A module contains itself.")
        found = {}
        for group in ("_parameters", "_buffers"):
            for name, value in _mapping(self.state.get(group)).items():
                if isinstance(value, Tensor):
                    found[f"{prefix}{name}"] = value
        for name, child in _mapping(self.state.get("_modules")).items():
            if isinstance(child, Module):
                found |= child.tensors(f"{prefix}{name}.", depth + 1)
        return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def read_file(path: Path) -> Any:
    """Read a .pt, .pth, .ckpt or .pkl file as data.

    Arguments:
        path: The file; its name does not matter, its content decides.

    Returns:
        Plain values, tensors on the CPU and `Module`.

    Raises:
        ForeignError: If the file is unsafe, damaged, too large, or of another kind. Nothing of it is executed.
    """
    size = path.stat().st_size
    if size > MAX_FILE:
        raise ForeignError(f"{path} has {size:,} bytes; files above {MAX_FILE:,} are refused.")
    with open(path, "rb") as file:
        start = file.read(4)
    if start == b"PK\3\4":
        return _read_archive(path)
    return _read_stream(io.BytesIO(read_bytes(path, MAX_FILE, ForeignError)), str(path), nested=False)


def _read_archive(path: Path) -> Any:
    """Read torch's zip archive: one pickle, and one entry of raw bytes per storage."""
    with opened(path, "archive", ForeignError, MAX_ENTRIES) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        _check_archive(path, archive.infolist())
        index = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
        if len(index) != 1:
            raise ForeignError(f"{path} is a zip archive without exactly one data.pkl: no checkpoint of torch.")
        folder = index[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") != b"little":
            raise ForeignError(f"{path} was written on a big-endian machine, which is not supported.")
        if entries[index[0]].file_size > MAX_INDEX:
            raise ForeignError(f"{path} has an index of more than {MAX_INDEX:,} bytes.")
        tree = read_pickle(io.BytesIO(archive.read(index[0])), str(path))

        def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
            entry = entries.get(f"{folder}data/{key}")
            if entry is None:
                raise ForeignError(f"{path} lacks its storage {key!r}.")
            if entry.file_size != count * dtype.itemsize:
                raise ForeignError(
                    f"{path}: storage {key!r} has {entry.file_size:,} bytes where {count:,} numbers are promised."
                )
            return _flat(bytearray(archive.read(entry)), dtype)

        return _Decoder(storage, nested=False, what=str(path)).value(tree)


def _check_archive(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse what torch never writes: compression (a bomb), encryption, names twice, compiled code."""
    seen: set[str] = set()
    for entry in entries:
        reason = ""
        if entry.filename in seen:
            reason = "appears twice"
        elif entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            reason = "is compressed or encrypted, as torch never writes it"
        elif "/code/" in f"/{entry.filename}":
            reason = "is code of a TorchScript module; save its state dict instead"
        if reason:
            raise ForeignError(f"{path} is refused: its entry {entry.filename!r} {reason}.")
        seen.add(entry.filename)


def _read_stream(stream: io.BytesIO, what: str, *, nested: bool) -> Any:
    """Read a plain pickle, or torch's older format: pickles in a row, then the bytes of every storage."""
    tree = read_pickle(stream, what)
    if tree != LEGACY_MAGIC:
        if nested:
            raise ForeignError(f"{what} is refused: an embedded storage is not in torch's format.")
        return _Decoder(None, nested=nested, what=what).value(tree)
    read_pickle(stream, what)  # the protocol's number
    system = read_pickle(stream, what)
    if not (isinstance(system, dict) and system.get("little_endian", True)):
        raise ForeignError(f"{what} was written on a big-endian machine, which is not supported.")
    tree = read_pickle(stream, what)
    keys = read_pickle(stream, what)
    types = {key: (dtype, count) for dtype, key, count in _storages(tree, what)}
    if not isinstance(keys, list) or set(keys) != set(types):
        raise ForeignError(f"{what} is damaged: its storages are not those its tensors use.")
    held = {key: _raw(stream, *types[key], what) for key in keys}

    def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
        return held[key]

    return _Decoder(storage, nested=nested, what=what).value(tree)


def _raw(stream: BinaryIO, dtype: torch.dtype, count: int, what: str) -> Tensor:
    head = stream.read(8)
    size = count * dtype.itemsize
    if len(head) != 8 or struct.unpack("<q", head)[0] != count:
        raise ForeignError(f"{what} is damaged: a storage does not have the length it promises.")
    content = bytearray(stream.read(size))
    if len(content) != size:
        raise ForeignError(f"{what} is cut short: {size - len(content):,} bytes of a storage are missing.")
    return _flat(content, dtype)


def _flat(content: bytearray, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _storages(tree: Any, what: str) -> list[tuple[torch.dtype, str, int]]:
    """Return every storage that a tree refers to, without recursion."""
    found, todo, seen = [], [tree], set()
    while todo:
        value = todo.pop()
        if id(value) in seen or isinstance(value, str | bytes | int | float | None):
            continue
        seen.add(id(value))
        if isinstance(value, Reference):
            found.append(_described(value, what))
        elif isinstance(value, dict):
            todo += value.values()
        elif isinstance(value, Call):
            todo += [*value.args, value.state, *value.items]
        elif isinstance(value, list | tuple) and not isinstance(value, Name):
            todo += value
    return found


def _described(reference: Reference, what: str) -> tuple[torch.dtype, str, int]:
    match reference.pid:
        case ("storage", Name() as kind, str() as key, str(), int() as count, *rest) if (
            kind.name in STORAGES and 0 <= count < MAX_FILE and rest in ([], [None])
        ):
            return STORAGES[kind.name], key, count
        case _:
            raise ForeignError(f"{what} is refused: it refers to something outside that is no storage.")


class _Decoder(Decoder):
    """Carry out the calls that are data.

    Arguments:
        storage: (dtype, key, count) -> flat tensor; None if there are no storages outside the pickle.
        nested: Whether this is an embedded storage, in which no other may be embedded.
        what: The file, for errors.
    """

    numbers = re.compile(r"[<>|=]?(?:[iuf][1248]|b1|\?)")

    def __init__(self, storage: Callable[[torch.dtype, str, int], Tensor] | None, *, nested: bool, what: str) -> None:
        super().__init__(what, ForeignError)
        self.storage, self.nested = storage, nested

    def fresh(self, tree: Any, depth: int) -> Any:
        if isinstance(tree, Name):
            return str(tree)
        if isinstance(tree, Reference):
            dtype, key, count = _described(tree, self.what)
            if self.storage is None:
                raise self.refuse("it refers to a storage outside itself")
            return self.storage(dtype, key, count)
        return super().fresh(tree, depth)

    def call(self, call: Call, depth: int) -> Any:
        if MODULES.fullmatch(call.name.module):
            return self.module(call.name.name, self.value(call.state, depth))
        return super().call(call, depth)

    def module(self, kind: Any, state: Any) -> Module:
        if not isinstance(kind, str) or not isinstance(state, dict):
            raise self.refuse("it holds an object without a class name and a state")
        return Module(kind, state)

    def mapping(self, call: Call, depth: int) -> dict[Any, Any]:
        pairs = list(call.items)
        if call.args:
            (first,) = call.args
            pairs = [*(first.items() if isinstance(first, dict) else first), *pairs]
        return {key: self.value(item, depth) for key, item in pairs}

    def sequence(self, call: Call, depth: int) -> list[Any]:
        first = list(call.args[0]) if call.args else []
        return [self.value(item, depth) for item in [*first, *call.items]]

    def tensor(self, call: Call, depth: int) -> Tensor:
        """A window on a storage: every number it shows lies inside, none is shown more often than it is held."""
        flat = self.value(call.args[0], depth)
        offset, size, stride = call.args[1], self.value(call.args[2], depth), self.value(call.args[3], depth)
        if not isinstance(flat, Tensor) or flat.ndim != 1:
            raise ValueError("no storage")
        numbers = [offset, *size, *stride]
        if not all(type(n) is int and 0 <= n < MAX_FILE for n in numbers) or len(size) != len(stride):
            raise ValueError("sizes that are no sizes")
        last = offset + sum((n - 1) * s for n, s in zip(size, stride))
        if math.prod(size) and (last >= len(flat) or math.prod(size) > len(flat)):
            raise ValueError(f"a tensor {tuple(size)} on a storage of {len(flat)} numbers")
        return torch.as_strided(flat, tuple(size), tuple(stride), offset) if math.prod(size) else flat.new_empty(size)

    def parameter(self, call: Call, depth: int) -> Any:
        return self.value(call.args[0], depth)

    def embedded(self, call: Call, depth: int) -> Tensor:
        """A storage as bytes in torch's older format, which may not embed another one."""
        (content,) = call.args
        if self.nested:
            raise self.refuse("it embeds a storage in a storage")
        if not isinstance(content, bytes):
            raise ValueError("no bytes")
        found = _read_stream(io.BytesIO(content), self.what, nested=True)
        if not isinstance(found, Tensor):
            raise ValueError("no storage")
        return found

    def scalar(self, call: Call, depth: int) -> int | float | bool:
        dtype, content = self.value(call.args[0], depth), self.value(call.args[1], depth)
        if not isinstance(dtype, np.dtype) or not isinstance(content, bytes) or len(content) != dtype.itemsize:
            raise ValueError("no number")
        return np.frombuffer(content, dtype=dtype)[0].item()

    def persistent(self, call: Call, depth: int) -> Module:
        (meta,) = call.args
        meta = self.value(meta, depth)
        if not isinstance(meta, dict) or meta.get("type") != "class":
            raise ValueError("no class")
        return self.module(meta.get("class_name"), meta.get("state"))

    def plain(self, call: Call, depth: int) -> str:
        return str(call.args[0]) if call.args and isinstance(call.args[0], str | int) else ""

    def shape(self, call: Call, depth: int) -> tuple[Any, ...]:
        return tuple(self.value(call.args[0], depth))

    def rebuilt(self, call: Call, depth: int) -> Module:
        """Return the object that copyreg would make of a class (protocols 0 and 1)."""
        kind = call.args[0]
        if not isinstance(kind, Name) or not MODULES.fullmatch(kind.module):
            raise ValueError("a class that is no module of torch")
        return self.module(kind.name, self.value(call.state, depth))


_Decoder.meanings = {
    **Decoder.meanings,
    ("collections", "OrderedDict"): _Decoder.mapping,
    ("collections", "defaultdict"): lambda decoder, call, depth: {
        key: decoder.value(item, depth) for key, item in call.items
    },
    ("dnnlib.util", "EasyDict"): _Decoder.mapping,
    ("dnnlib", "EasyDict"): _Decoder.mapping,
    ("builtins", "dict"): _Decoder.mapping,
    ("builtins", "set"): _Decoder.sequence,
    ("__builtin__", "set"): _Decoder.sequence,
    ("builtins", "list"): _Decoder.sequence,
    ("torch._utils", "_rebuild_tensor"): _Decoder.tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _Decoder.tensor,
    ("torch._utils", "_rebuild_parameter"): _Decoder.parameter,
    ("torch.storage", "_load_from_bytes"): _Decoder.embedded,
    ("torch", "Size"): _Decoder.shape,
    ("torch", "device"): _Decoder.plain,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Decoder.persistent,
    ("copyreg", "_reconstructor"): _Decoder.rebuilt,
    ("copy_reg", "_reconstructor"): _Decoder.rebuilt,
    **{(module, "scalar"): _Decoder.scalar for module in ARRAYS},
}
INERT = {("numpy", "ndarray"), ("builtins", "object"), ("__builtin__", "object"), ("builtins", "int")}


def allowed(name: Name) -> bool:
    """Return whether a checkpoint may mention a name: data, or a class that stays a name."""
    if (name.module, name.name) in _Decoder.meanings or (name.module, name.name) in INERT:
        return True
    if name.module in ("torch", "torch.storage") and name.name in STORAGES:
        return True
    if name.module == "torch" and isinstance(vars(torch).get(name.name), torch.dtype):
        return True
    return bool(MODULES.fullmatch(name.module)) and name.name.isidentifier()
