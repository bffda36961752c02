"""Tensors in safetensors files, read within bounds: a file's header decides how much is built of it."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

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
