"""Where there is no GPU, its checks and its table are rehearsed on the CPU, so that they run the first time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(*words: str, **environment: str) -> str:
    """Run Python from the project's root and return what it prints."""
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_checks_are_rehearsed() -> None:
    """Every check that a CPU can stand in for passes against itself."""
    checks = [f"tests/gpu/{name}.py" for name in ("test_agreement", "test_training")]
    said = run("-m", "pytest", "-m", "", "-p", "no:cacheprovider", *checks, SFUMATO_GPU="cpu")
    assert " passed" in said and "failed" not in said


@pytest.mark.slow
def test_the_table_is_rehearsed(tmp_path: Path) -> None:
    run("benchmarks/gpu.py", "--device", "cpu", "--rehearse", "--out", str(tmp_path / "gpu.md"))
    page = (tmp_path / "gpu.md").read_text()
    assert page.count("| training |") == 3 and page.count("| sampling |") == 3
    assert "Error" not in page and page.count("a rehearsal") == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    assert "skipped: no CUDA device" in run("benchmarks/gpu.py")
