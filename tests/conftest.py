"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.browser import CHROMIUM, Browser

from sfumato.recipes.digits import edm_digits
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.training.hooks import sheets

TINY = (
    "data.first=96",
    "data.flip=true",
    "network.width=16",
    "network.mult=1,1",
    "network.blocks=1",
    "network.dropout=0.1",
    "network.embedding=32",
    "train.optimizer=adam",
    "train.batch=16",
    "train.images=320",
    "train.rate.warmup=64",
    "train.precision=fp32",
    "train.sheet_every=1000000",
    "train.log_every=32",
    "train.clip=1.0",
    "sample.grid.steps=3",
    "ema.power=0.10",
    "ema.half_life=0.001",
    "ema.use=power-0.10",
)


@pytest.fixture(scope="session", autouse=True)
def narrow_sheets() -> Iterator[None]:
    """Sheets of two images a class, where eight would take half of the time of a small training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheets, "COLUMNS", 2)
        yield


@pytest.fixture(scope="session")
def tiny() -> Recipe:
    """A recipe that trains in about a second: 20 steps with dropout, flips, warm-up, clipping and two averages."""
    return override(edm_digits(), TINY)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The root of the real datasets; the test is skipped where there are none."""
    root = os.environ.get("SFUMATO_DATA")
    if not root or not (Path(root) / "fashion-mnist").is_dir():
        pytest.skip("real data is not at hand: set SFUMATO_DATA to a folder that holds fashion-mnist/")
    return Path(root)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One headless Chromium for all tests; skips where there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = Browser(profile)
        try:
            yield driver
        finally:
            driver.close()
