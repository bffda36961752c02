"""Weights: read from safetensors files within bounds, and named by what they hold, never by a file or a step."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sfumato.core.reading import Error, FileRefusedError, parse_json

TENSORS = 20_000
"""The most tensors of one file; the largest networks here have a tenth of that."""
HEADER = 8 << 20
"""The most bytes of a header: 8 MiB."""
LARGEST = 64 << 30
"""The most bytes of one file: 64 GiB."""


def read_tensors(path: Path, error: Error = FileRefusedError) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Arguments:
        path: Path of the file.
        error: The kind of error to raise.

    Raises:
        ValueError: Of that kind, if it is no such file, holds more than is read, or is damaged.
        OSError: If it is missing or may not be read.
    """
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise error(f"{path} is not a regular file.")
    with open(path, "rb") as file:
        head = file.read(8)
        size = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 0 < size <= min(HEADER, about.st_size - 8) or about.st_size > LARGEST:
            raise error(f"{path} is not a readable safetensors file: its header claims {size:,} bytes.")
        names = parse_json(file.read(size), f"The header of {path}", error=error)
    if len(names) > TENSORS:
        raise error(f"{path} holds {len(names):,} tensors, and at most {TENSORS:,} are read.")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as reason:
        raise error(f"{path} is not a readable safetensors file: {reason}.") from None


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 (hex) of tensors: names, types, shapes and values, in order of name.

    Arguments:
        tensors: Any, on any device; how they lie in memory does not matter.
    """
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
