"""One training step on a CPU passes through eight files: nothing of other machines has to be read for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
import torch
from scripts.first_step import road

import sfumato
from sfumato.recipes.digits import edm_digits
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe
from sfumato.runs.resolve import load_data, resolve
from sfumato.training.trainer import Trainer

ROOT = Path(sfumato.__file__).parent
# the parts that a recipe names, and what every package speaks but the denoiser itself
PARTS = ("networks/", "draws.py", "weightings.py", "conditioning.py", "training/rates.py", "training/optim.py")
SPEECH = ("training/muon.py", "core/level.py", "core/noise.py", "core/images.py", "core/target.py", "core/condition.py")


@contextmanager
def files_entered(found: set[str]) -> Iterator[None]:
    """Note the files of sfumato whose functions are called inside the block."""

    def note(frame: FrameType, event: str, argument: object) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and ROOT in file.parents:
            found.add(file.relative_to(ROOT).as_posix())

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


def test_a_step_reads_in_eight_files() -> None:
    recipe: Recipe = edm_digits()
    data = load_data(recipe, "train")
    trainer = Trainer(plan(resolve(recipe, data)), data, torch.device("cpu"))
    found: set[str] = set()
    with files_entered(found):
        assert trainer.advance(0.0)
    assert {file for file in found if not file.startswith((*PARTS, *SPEECH))} == {
        *("training/trainer.py", "training/steps.py", "training/ema.py", "training/log_bins.py"),
        *("data/loader.py", "objectives/denoising.py", "objectives/_noising.py", "core/denoiser.py"),
    }


@pytest.mark.slow
def test_the_road_to_the_first_step_returns_to_few_files() -> None:
    rows = road("edm-digits")
    assert len(rows) <= 70, "python scripts/first_step.py --show prints it"
    assert len(rows) - len({file for file, _ in rows}) <= 32
