"""Values from inert pickles: plain data and NumPy's arrays, and nothing else.

A pickle is a program: its GLOBAL opcode names any importable callable and REDUCE calls it. `data.pickles` reads one
without importing or calling anything. Here the few calls that are data are carried out by code of this package: an
array is built from its bytes after dtype, shape and length are checked. Every other call is refused. `interop.tensors`
adds the calls of torch.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sfumato.data.dataset import DataError
from sfumato.data.pickles import Call, Name, read_pickle

MAX_BYTES = 1 << 26
"""The longest pickle of plain data: 64 MiB (a CIFAR-10 batch has 31)."""
MAX_DEPTH = 200
"""How deeply values may be nested."""
ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")


class Decoder:
    """Carry out the calls of a pickle that are data.

    Arguments:
        what: Name of the file in messages.
        error: The kind of error to raise.
    """

    numbers = re.compile(r"u1")  # types of arrays
    meanings: Mapping[tuple[str, str], Callable[[Any, Call, int], Any]]

    def __init__(self, what: str, error: type[ValueError]) -> None:
        self.what, self.error = what, error
        self.made: dict[int, Any] = {}
        self.kept: list[Any] = []  # what `made` knows by its identity must not be freed

    def refuse(self, reason: str) -> ValueError:
        """Return the error that names the file and a reason."""
        return self.error(f"{self.what} is refused: {reason}. Nothing of it was executed.")

    def value(self, tree: Any, depth: int = 0) -> Any:
        """Return what a tree means."""
        if tree is None or isinstance(tree, str | bytes | bool | int | float):
            return tree
        if depth > MAX_DEPTH:
            raise self.refuse(f"it is nested more than {MAX_DEPTH} deep, or contains itself")
        if id(tree) not in self.made:
            self.made[id(tree)] = self.fresh(tree, depth + 1)
            self.kept.append(tree)
        return self.made[id(tree)]

    def fresh(self, tree: Any, depth: int) -> Any:
        """Return what a tree means that was not met before."""
        if isinstance(tree, dict):
            return {key: self.value(item, depth) for key, item in tree.items()}
        if isinstance(tree, list | tuple) and not isinstance(tree, Name):
            return type(tree)(self.value(item, depth) for item in tree)
        if isinstance(tree, Call):
            return self.call(tree, depth)
        raise self.refuse(f"it holds a {type(tree).__name__}")

    def call(self, call: Call, depth: int) -> Any:
        """Return what a call makes."""
        name = call.name
        meaning = self.meanings.get((name.module, name.name))
        if meaning is None:
            raise self.refuse(f"it calls {name}, which makes no data")
        try:
            return meaning(self, call, depth)
        except self.error:
            raise
        except (TypeError, ValueError, IndexError, RuntimeError, OverflowError) as error:
            raise self.refuse(f"it calls {name} with what does not fit ({error})") from None

    def dtype(self, call: Call, depth: int) -> np.dtype[Any]:
        """Return a type of numbers."""
        code = call.args[0]
        order = call.state[1] if isinstance(call.state, tuple) and len(call.state) > 1 else "|"
        code = code.decode() if isinstance(code, bytes) else code
        if (
            not isinstance(code, str)
            or not self.numbers.fullmatch(code)
            or order not in ("<", "|", "=", ">", b"<", b"|")
        ):
            raise ValueError(f"numbers of type {code!r}")
        return np.dtype(code).newbyteorder(">") if order == ">" else np.dtype(code)

    def array(self, call: Call, depth: int) -> np.ndarray:
        """Return an array of the bytes that the call's state holds."""
        _, shape, dtype, fortran, content = call.state
        dtype, content = self.value(dtype, depth), self.value(content, depth)
        content = content.encode("latin1") if isinstance(content, str) else content  # Python 2
        if not isinstance(dtype, np.dtype) or not isinstance(content, bytes):
            raise ValueError("no array of numbers")
        if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(content):
            raise ValueError(f"an array of shape {shape} with {len(content)} bytes")
        return np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if fortran else "C")

    def encoded(self, call: Call, depth: int) -> bytes:
        """Return bytes, which protocol 2 writes as a text and its encoding."""
        text, encoding = call.args
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise ValueError("no bytes in latin1")
        return text.encode("latin1")


Decoder.meanings = {
    ("numpy", "dtype"): Decoder.dtype,
    ("_codecs", "encode"): Decoder.encoded,
    **{(module, "_reconstruct"): Decoder.array for module in ARRAYS},
}


def read_plain(content: bytes, what: str) -> Any:
    """Read plain values and uint8 arrays from a pickle.

    Arguments:
        content: The pickle's bytes, of any protocol.
        what: Name of the file in messages.

    Returns:
        Dicts, lists, tuples, strings, bytes, numbers and arrays; byte strings of Python 2 as strings.

    Raises:
        DataError: If the pickle is too long, malformed, or holds anything else.
    """
    if len(content) > MAX_BYTES:
        raise DataError(f"{what} has {len(content):,} bytes; pickles above {MAX_BYTES:,} are refused.")
    allowed = {*Decoder.meanings, ("numpy", "ndarray")}
    tree = read_pickle(io.BytesIO(content), lambda name: (name.module, name.name) in allowed, what, DataError)
    return Decoder(what, DataError).value(tree)
