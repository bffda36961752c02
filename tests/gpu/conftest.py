"""What the checks of a GPU share: the device, and float32 that is float32.

make gpu-check                        the checks, then the table of speeds; without CUDA it says that it was skipped
SFUMATO_GPU=cpu pytest -m '' tests/gpu     a rehearsal: the CPU against itself, every line but CUDA's own
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU; the CPU in a rehearsal (SFUMATO_GPU=cpu); the test is skipped where there is neither."""
    if os.environ.get("SFUMATO_GPU") == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device: nothing is known about a GPU here")
    return torch.device("cuda")


@pytest.fixture(scope="session")
def gpu(device: torch.device) -> torch.device:
    """The GPU itself, for what a CPU cannot rehearse."""
    if device.type != "cuda":
        pytest.skip("a rehearsal: this needs CUDA itself")
    return device


@pytest.fixture(autouse=True)
def float32() -> Iterator[None]:
    """Switch TF32 off and cuDNN's choice of algorithms to repeatable ones inside a test."""
    before = (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.deterministic,
    )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    yield
    (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) = (
        before
    )
