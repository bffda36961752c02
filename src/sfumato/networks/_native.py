"""C files of this package, compiled on the machine that runs them.

A file is compiled once a machine, in about a second, by the C compiler at hand (`cc`, or `$CC`), and kept under
``$XDG_CACHE_HOME/sfumato/kernels``. Its user checks it against torch before it is used, and leaves everything to torch
where there is no compiler or with ``SFUMATO_NATIVE=0``.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from torch import Tensor

from sfumato.download import cache_folder

FILES = Path(__file__).parent / "files"
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC")


def compiled(name: str, flags: tuple[str, ...] = ()) -> ctypes.CDLL | None:
    """Return the library of a C file, building it once a machine; None if that is not possible.

    Arguments:
        name: The file, in `files`.
        flags: For the compiler, beside those of every file.
    """
    if os.environ.get("SFUMATO_NATIVE", "1") == "0" or sys.platform == "win32":
        return None
    for threads in (("-fopenmp",), ()):  # symbols of OpenMP come from the one torch has loaded
        try:
            return ctypes.CDLL(str(_built(FILES / name, (*FLAGS, *flags, *threads))))
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def _built(source: Path, flags: tuple[str, ...]) -> Path:
    """Return the shared library of these flags, compiled if it is not there."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    facts = "\n".join((source.read_text(), *compiler, *flags, platform.machine(), *sorted(_cpu())))
    folder = cache_folder("kernels")
    target = folder / f"{source.stem}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        piece, whole = target.with_suffix(f".{os.getpid()}.o"), target.with_suffix(f".{os.getpid()}.tmp")
        try:
            for command in ((*flags, "-c", str(source), "-o", str(piece)), ("-shared", str(piece), "-o", str(whole))):
                subprocess.run([*compiler, *command], check=True, capture_output=True, timeout=120)
            os.replace(whole, target)
        finally:
            piece.unlink(missing_ok=True)
            whole.unlink(missing_ok=True)
    return target


@functools.cache
def _cpu() -> frozenset[str]:
    """Return what "-march=native" looks at, so that a home shared by several machines keeps a file for each."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset({platform.processor()})
    return frozenset(line for line in lines if line.startswith(("flags", "Features", "model name")))


def has(feature: str) -> bool:
    """Return whether the processor says that it has a feature, such as "avx512_bf16"."""
    return any(feature in line.split() for line in _cpu())


def at(tensor: Tensor | None) -> ctypes.c_void_p:
    """Return where a tensor's numbers begin, for a call; null for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def enough(failed: int) -> None:
    """Raise if a kernel said that it had no memory."""
    if failed:
        raise MemoryError("A compiled kernel could not allocate its scratch memory. Use a smaller micro-batch.")
