"""Four people walk their paths to the end, each command as the one before printed it: no dead end.

Each command's wall time and peak memory is printed (`pytest -m slow -s tests/journeys`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.faults.test_foreign_checkpoints import unet_folder
from tests.journeys.walking import Walk

from sfumato.runs.checkpoint import write_json

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "wait4"), reason="peak memory is read by wait4")]
SMALL = "network.widths=16,32 network.middle=32,32 network.up=16"


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    return Walk(tmp_path, {"XDG_CACHE_HOME": str(tmp_path / "cache")})


def test_a_student_makes_digits(walk: Walk) -> None:
    walk.follow(["sfumato demo --minutes 0.2"])
    walk.check()
    walk.done("report", "sample", "picture", "evaluate", "compare", "app", "explain", "list", "restore", "edit")


def test_a_student_makes_cats_and_frogs(walk: Walk, tmp_path: Path) -> None:
    """With 400 made-up pictures of two classes in place of CIFAR-10's, and a network as small as the budget."""
    pictures(tmp_path / "animals", ("cat", "frog"), 400, (32,))
    words = f"{SMALL} shape=none train.images=1600 sample.grid=respaced sample.grid.steps=10 evaluate.n=60"
    walk.follow([f"sfumato train course-ddpm-cats-frogs data.name=animals data.classes=cat,frog {words}"])
    walk.check()
    walk.done("sample", "evaluate runs/course-ddpm-cats-frogs --extract random", "restore", "edit", "report", "app")


def test_a_researcher_brings_own_pictures(walk: Walk, tmp_path: Path) -> None:
    """300 pictures of several sizes; one is broken, which `data check` says (exit code 2) and the rest leaves out."""
    folder = tmp_path / "photos"
    pictures(folder, ("diamond", "ring"), 300, (24, 32, 40))
    broken = folder / "ring" / "broken.png"
    broken.write_bytes(next((folder / "ring").glob("*.png")).read_bytes()[:100])
    walk.follow(walk.run("sfumato data check photos", codes=(2,)))
    walk.check()
    walk.done("data show photos", "train", "evaluate", "report")
    (result,) = (tmp_path / "runs" / "photos" / "results").glob("random-*.json")
    score = json.loads(result.read_text())["scores"][0]
    assert score["name"] == "FD[random]" and score["floor"] is not None


def test_an_engineer_brings_a_checkpoint_of_diffusers(walk: Walk, tmp_path: Path) -> None:
    """Import, sample, score against a folder, export, and the call that is printed, if diffusers is here."""
    unet_folder(tmp_path / "cat" / "unet")
    (tmp_path / "cat" / "scheduler").mkdir()
    write_json(tmp_path / "cat" / "scheduler" / "scheduler_config.json", {"_class_name": "DDIMScheduler"})
    side = json.loads((tmp_path / "cat" / "unet" / "config.json").read_text())["sample_size"]
    pictures(tmp_path / "photos", ("all",), 200, (side,))
    data = "data.name=photos data.channels=1 data.labels=false"
    walk.follow([f"sfumato import cat {data} sample.grid.steps=5 evaluate.n=60"])
    walk.run("sfumato export runs/cat --to diffusers")
    text = (tmp_path / "said.txt").read_text()
    call = next(line.partition(": ")[2] for line in text.splitlines() if "from_pretrained" in line)
    (tmp_path / "call.py").write_text(
        "import sys\ntry:\n    from diffusers import DDIMPipeline, DDPMPipeline\nexcept ModuleNotFoundError:\n"
        f"    sys.exit(0)\nmade = {call}\nassert len(made.images) == 8\n"
    )
    walk.run("python call.py")
    walk.run("sfumato import runs/cat/exports/diffusers --out runs/again " + data)
    walk.check()
    walk.done("import", "sample", "evaluate", "export")


def pictures(folder: Path, classes: tuple[str, ...], count: int, sides: tuple[int, ...]) -> None:
    """Write coloured squares and discs, a folder a class, in turn of several sides."""
    rng = np.random.default_rng(0)
    for i in range(count):
        name, side = classes[i % len(classes)], sides[i // len(classes) % len(sides)]
        y, x = np.mgrid[:side, :side] / side - 0.5
        inside = np.hypot(x, y) < rng.uniform(0.2, 0.4) if i % len(classes) else abs(x) + abs(y) < rng.uniform(0.2, 0.4)
        pixels = np.where(inside[..., None], rng.uniform(120, 255, 3), rng.uniform(0, 90, 3)).astype(np.uint8)
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name / f"{i:04d}.png")
