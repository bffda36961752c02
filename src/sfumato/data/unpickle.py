"""Read a pickle of plain values and uint8 arrays, and execute nothing.

A pickle is a program: its GLOBAL opcode names any importable callable and REDUCE calls it. This reader looks nothing up
by import. Three names of NumPy are mapped to inert stand-ins defined here, which only remember their arguments; every
other name, persistent id and extension is refused. What comes out are dicts, lists, tuples, strings, bytes, numbers,
and arrays built from remembered bytes after their dtype, shape and length are checked.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np

from sfumato.data.dataset import DataError

MAX_BYTES = 1 << 26
"""The longest pickle read: 64 MiB (a CIFAR-10 batch has 31)."""


class _Dtype:
    """Stand for ``numpy.dtype(code, align, copy)``; only unsigned bytes pass."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        if code not in ("u1", b"u1"):
            raise DataError(f"an array of type {code!r}, where only uint8 is allowed")

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """Stand for ``numpy.ndarray``; holds shape and bytes until they are checked."""

    def __init__(self) -> None:
        self.value: np.ndarray = np.zeros(0, dtype=np.uint8)

    def __setstate__(self, state: Any) -> None:
        match state:
            case (int(), tuple(shape), _Dtype(), bool() | int() as fortran, bytes(content)):
                pass
            case _:
                raise DataError("an array whose state is not (version, shape, dtype, order, bytes)")
        if not all(isinstance(n, int) and n >= 0 for n in shape) or math.prod(shape) != len(content):
            raise DataError(f"an array of shape {shape} with {len(content)} bytes")
        self.value = np.frombuffer(content, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _Array:
        raise DataError("an array of another class than numpy.ndarray")
    return _Array()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Stand for ``_codecs.encode``, by which protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise DataError("bytes in another encoding than latin1")
    return text.encode("latin1")


ALLOWED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise DataError(f"a reference to {module}.{name}, which is not data")
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise DataError("a persistent reference, which is not data")


def read_pickle(content: bytes, what: str) -> Any:
    """Read plain values and uint8 arrays from a pickle.

    Arguments:
        content: The whole pickle. Strings of Python 2 come out as bytes.
        what: Its name, for errors.

    Returns:
        The value, arrays as read-only uint8 `numpy.ndarray`.

    Raises:
        DataError: If it is too long, malformed, or holds anything else; nothing of it has been executed.
    """
    if len(content) > MAX_BYTES:
        raise DataError(f"{what} has {len(content):,} bytes; pickles above {MAX_BYTES:,} are refused.")
    try:
        return _plain(_Reader(io.BytesIO(content), encoding="bytes").load())
    except DataError as error:
        raise DataError(f"{what} is refused: it holds {error}.") from error
    except Exception as error:  # a malformed pickle raises nearly anything
        raise DataError(f"{what} is not a readable pickle ({type(error).__name__}: {error}).") from error


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    if value is None or isinstance(value, str | bytes | int | float):
        return value
    raise DataError(f"a value of type {type(value).__name__}")
