"""What the machine is, and how to make it fast without changing results.

On Linux, glibc returns every large block to the system when it is freed and faults it in again on the next step. A
training step frees and takes the same blocks thousands of times; told to keep them, the CPU trains 10 to 20% faster
(measured on two cores with a 2.3M-parameter U-Net). What it keeps is cut to the sizes of those blocks: work of other
sizes, such as samples after training, finds few that fit and takes new memory beside them. So where the work changes,
what is kept is given back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from sfumato.core.errors import OptionError
from sfumato.networks._fused import library

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks for reuse; return whether it could be told."""
    libc = _glibc()
    if libc is None:
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * 2**20))
    return all(libc.mallopt(name, value) for name, value in settings)


def give_back_freed_memory() -> None:
    """Give the system back what glibc keeps of freed blocks, before work of other sizes; elsewhere do nothing."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> Any:
    return ctypes.CDLL(None) if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None


def default_device() -> torch.device:
    """Return the best device at hand: cuda, then mps, then cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def device_named(name: str | None) -> str:
    """Return a device that is there: the named one, or the best at hand.

    Raises:
        OptionError: If there is no such device.
    """
    if name is None:
        return str(default_device())
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # an unknown word; a device this build or machine does not have
        reason = str(error).splitlines()[0].rstrip(".")
        raise OptionError(f"There is no device {name!r} here ({reason}). Give cpu, cuda, cuda:1 or mps.") from None
    return name


def computing_on(device: torch.device | str | None) -> torch.device:
    """Return where a long computation runs, the best device at hand for None, and prepare its memory."""
    found = default_device() if device is None else torch.device(device)
    if found.type == "cpu":
        keep_freed_memory()
    return found


def describe(device: torch.device | str) -> dict[str, Any]:
    """Return the hardware and versions that a result should carry."""
    device = torch.device(device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        name = f"{_cpu_name()}, {threads} thread{'s' * (threads > 1)}"
    return {
        "device": name,
        "cores": os.cpu_count(),
        "kernels": "native" if device.type == "cpu" and library(torch.bfloat16) is not None else "torch",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_memory(device: torch.device) -> int:
    """Return the bytes that this process may still take on a device, a tenth left to others; no bound if unknown."""
    if device.type == "cuda":
        return int(0.9 * torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return sys.maxsize
    bounds = [sys.maxsize]
    with contextlib.suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        bounds += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    with contextlib.suppress(OSError, ValueError):  # no group, or "max": no limit
        limit, taken = (int(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current"))
        bounds.append(max(0, limit - taken))
    return int(0.9 * min(bounds))
