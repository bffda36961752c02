"""A run, its images and its scores, written by the program of 28 November 2026, still mean what they meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.cli import main
from sfumato.evaluation import evaluate
from sfumato.report.seed_folder import SettingsError, fill
from sfumato.report.signature import read
from sfumato.runs.run import Run

SAVED = Path(__file__).parent / "saved"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAVED / "run", tmp_path / "run"))


def test_its_images_are_the_same(run: Path) -> None:
    """Equal but for the rounding of other processors: no pixel is off by more than one level, and hardly any by one."""
    found = [read(entry) for entry in sorted((SAVED / "images").glob("seed-*.png"))]
    labels = torch.tensor([tag["label"] for _, tag in found])
    images = Run.open(run).source()(range(4), labels)
    assert [tag["seed"] for _, tag in found] == [0, 1, 2, 3]
    off = (
        torch.from_numpy(np.stack([np.asarray(picture) for picture, _ in found]))[:, None].int() - images.int()
    ).abs()
    assert off.max() <= 1 and off.float().mean() < 0.01


def test_its_folder_of_images_is_not_made_again(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SAVED / "images", tmp_path / "images"))
    settings = json.loads((folder / "settings.json").read_text())
    assert "room" in settings["sample"]["sampler"]
    settings["sample"] = Run.open(run).recipe.to_json()["sample"]  # as this version writes it
    labels = torch.tensor([read(entry)[1]["label"] for entry in sorted(folder.glob("seed-*.png"))])
    assert fill(folder, Run.open(run).source(), range(4), labels, settings) == 0
    settings["use"] = "raw"
    with pytest.raises(SettingsError, match="use: power-0.10 -> raw"):
        fill(folder, Run.open(run).source(), range(4), labels, settings)


def test_its_scores_are_read_and_found_again(run: Path) -> None:
    saved = next((run / "results").glob("*.json"))
    again = evaluate(Run.open(run), n=64, device="cpu", quiet=True)
    assert main(["compare", str(saved), str(again.path)]) == 0
    for old, new in zip(json.loads(saved.read_text())["scores"], again.scores, strict=True):
        assert new.value == pytest.approx(old["value"], rel=1e-3)
        assert new.protocol.protocol_id == old["protocol"]["protocol_id"]


def test_its_training_goes_on(run: Path) -> None:
    words = ["train", "edm-digits", "--out", str(run), "network=convnet", "network.widths=8,8", "network.embedding=8"]
    words += ["network.frequencies=4", "ema.power=0.10", "ema.use=power-0.10", "train.precision=fp32"]
    words += ["train.batch=32", "train.images=160", "train.log_every=32", "train.sheet_every=100000000"]
    words += ["sample.grid.steps=4", "sample.batch=16", "sample.guidance=1.5", "sample.interval=0.1,10"]
    assert main([*words, "--allow", "train.images", "--quiet", "--device", "cpu"]) == 0
    assert Run.open(run).checkpoint.state["seen"] == 160
