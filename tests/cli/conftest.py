"""Two very small trained runs, and a way to run a command and see what it printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from sfumato.cli import main

SMALL = [
    *("train.images=128", "train.batch=64", "train.optimizer=adam", "train.optimizer.lr=0.02"),
    *("train.precision=fp32", "train.log_every=64"),
    *("network.width=16", "network.head_width=16", "network.blocks=1", "network.embedding=32"),
    *("sample.grid.steps=3", "evaluate.n=100", "evaluate.extractor=pixels"),
]


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command in this process."""

    def run(*words: object) -> Said:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return Said(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def small() -> list[str]:
    """Fields that make edm-digits train in a second."""
    return SMALL


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "labelled"
    assert main(["train", "edm-digits", *SMALL, "--out", str(folder), "--device", "cpu", "--quiet"]) == 0
    return folder


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "unlabelled"
    words = ["train", "edm-digits", *SMALL, "data.labels=false", "--out", str(folder), "--device", "cpu", "--quiet"]
    assert main(words) == 0
    return folder
